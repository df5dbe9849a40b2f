"""The demo's settings: a shop's gateway does not change the demo's own."""

from clickscore.stream.settings import GatewaySettings, Settings
from clickscore.stream.simulator.demo import demo_settings


def test_gateway_of_a_demo_has_settings_of_its_own() -> None:
    shop = Settings.of(
        gateway_host="0.0.0.0",
        gateway_keys_file="keys.json",
        gateway_tls_certfile="cert.pem",
        gateway_tls_keyfile="key.pem",
        gateway_cors_origins="https://shop.example",
        gateway_redis_url="redis://shop.example:6379/0",
        gateway_console="off",
    )
    own = demo_settings(shop, None, 8123).gateway
    assert own == GatewaySettings(gateway_port=8123, gateway_decide_ms=5_000)
