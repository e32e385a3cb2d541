"""The sandbox's sample models: outputs that the next step of a run can use."""

from receiver.sandbox.sample_models import brand_output, campaign_output
from receiver.sandbox.script import Script, shape_for

FILES = "http://files.test/f/t1"


def test_a_brand_is_always_the_same_for_its_address() -> None:
    found = brand_output(FILES, {"url": "https://www.example.com/about"})
    assert (found["name"], found["url"]) == ("Example", "https://www.example.com/about")
    assert found["brand_id"].startswith("brand_")
    assert len(set(found["colours"])) == 3
    assert {**brand_output("elsewhere", {"url": found["url"]}), "logo_url": found["logo_url"]} == found
    assert brand_output(FILES, {"url": "https://example.org"})["brand_id"] != found["brand_id"]


def test_an_invalid_address_has_a_nameless_brand() -> None:
    assert brand_output(FILES, {})["name"] == "Nameless"
    assert brand_output(FILES, {"url": 7})["name"] == "Nameless"
    assert brand_output(FILES, {"url": "http://["})["name"] == "Nameless"


def test_an_advertisement_belongs_to_the_given_campaign() -> None:
    hero = campaign_output(FILES, {"prompt": "Hello", "brand_id": "brand_1"})
    assert (hero["headline"], hero["locale"], hero["image_urls"]) == ("Hello", "en", [f"{FILES}.png"])
    german = campaign_output("b", {"campaign_id": hero["campaign_id"], "image_url": hero["image_url"], "locale": "de"})
    assert (german["campaign_id"], german["made_from"]) == (hero["campaign_id"], hero["image_url"])
    assert german["locale"] == "de"
    assert campaign_output("b", {"prompt": "Hello", "brand_id": "brand_2"})["campaign_id"] != hero["campaign_id"]


def test_the_models_are_recognized_by_their_names() -> None:
    shapes = {"sandbox/brands": "brand", "sandbox/campaigns": "campaign", "brands": "flux"}
    assert {model: shape_for(Script(), model) for model in shapes} == shapes
