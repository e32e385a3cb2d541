"""The sandbox's own models give something to hand on from step to step."""

from receiver.sandbox.script import Script, shape_for
from receiver.sandbox.studio import brand, campaign

FILES = "http://files.test/f/t1"


def test_a_brand_is_always_the_same_for_its_address() -> None:
    found = brand(FILES, {"url": "https://www.example.com/about"})
    assert (found["name"], found["url"]) == ("Example", "https://www.example.com/about")
    assert found["brand_id"].startswith("brand_")
    assert len(set(found["colours"])) == 3
    assert {**brand("elsewhere", {"url": found["url"]}), "logo_url": found["logo_url"]} == found
    assert brand(FILES, {"url": "https://example.org"})["brand_id"] != found["brand_id"]


def test_an_address_that_is_none_is_nobody_s() -> None:
    assert brand(FILES, {})["name"] == "Nameless"
    assert brand(FILES, {"url": 7})["name"] == "Nameless"
    assert brand(FILES, {"url": "http://["})["name"] == "Nameless"


def test_an_advertisement_is_of_the_campaign_that_was_given() -> None:
    hero = campaign(FILES, {"prompt": "Hello", "brand_id": "brand_1"})
    assert (hero["headline"], hero["locale"], hero["image_urls"]) == ("Hello", "en", [f"{FILES}.png"])
    german = campaign("b", {"campaign_id": hero["campaign_id"], "image_url": hero["image_url"], "locale": "de"})
    assert (german["campaign_id"], german["made_from"]) == (hero["campaign_id"], hero["image_url"])
    assert german["locale"] == "de"
    assert campaign("b", {"prompt": "Hello", "brand_id": "brand_2"})["campaign_id"] != hero["campaign_id"]


def test_the_models_are_known_by_their_names() -> None:
    shapes = {"sandbox/brands": "brand", "sandbox/campaigns": "campaign", "brands": "flux"}
    assert {model: shape_for(Script(), model) for model in shapes} == shapes
