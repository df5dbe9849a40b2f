from clickscore.model.threads import choose_threads


def test_small_model_trains_with_one_thread_and_a_large_one_with_all_cores():
    assert choose_threads(None, dim=32) == 1
    assert choose_threads(None, dim=192) is None


def test_number_of_the_command_line_counts():
    assert choose_threads(2, dim=32) == 2
