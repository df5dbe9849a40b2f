from clickscore.model.onnx_runtime import can_load, native_library, session_options


def test_library_that_cannot_be_loaded_is_left_out_with_one_warning(tmp_path, caplog):
    library = tmp_path / "_best_items.abi3.so"
    library.write_bytes(b"no library")
    assert not can_load(library)
    assert not can_load(library)
    (record,) = caplog.records
    assert "the native operators are not used" in record.getMessage()


def test_options_have_the_native_operators_where_these_can_be_loaded():
    library = native_library()
    assert library is None or can_load(library)
    assert session_options() is not None
