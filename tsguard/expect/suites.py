"""A suite in any form that GX knows, as the ExpectationSuite that it is: the object, its dictionary, its JSON file, or
a name of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsguard.errors import DataError, explain
from tsguard.expect.stock import quiet

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "suites"
"""Suites of the catalogued sets, found by name."""

OWN = (Path("suites") / "data", Path("suites"))
"""Where a project keeps suites of its own, which are found by name from the working folder and come first."""


def load_suite(suite: Any) -> Any:
    """The genuine `great_expectations.ExpectationSuite`; a list of expectations becomes a suite of them."""
    with quiet():
        from great_expectations import ExpectationSuite
        from great_expectations.expectations.expectation import Expectation

        import tsguard.expect.timeseries  # noqa: F401  registers our own expectation types, which a file may name

        if isinstance(suite, ExpectationSuite):
            return suite
        if isinstance(suite, Expectation):
            suite = [suite]
        if isinstance(suite, list | tuple) and all(isinstance(each, Expectation) for each in suite):
            return ExpectationSuite(name="expectations", expectations=[each.copy() for each in suite])
        if isinstance(suite, str | Path):
            path = named(suite) or Path(suite)
            return _from_mapping(_read(path), str(suite))
        if isinstance(suite, Mapping):
            return _from_mapping(suite, "suite")
    raise _unusable("suite", type(suite).__name__)


def named(suite: str | Path) -> Path | None:
    """The file of a suite that is called by its name; None for what is a path."""
    if not isinstance(suite, str) or Path(suite).name != suite or suite.endswith(".json") or Path(suite).is_file():
        return None
    return next((file for folder in (*OWN, SHIPPED) if (file := folder / f"{suite}.json").is_file()), None)


def _read(path: Path) -> Any:
    if not path.is_file():
        names = sorted({file.stem for folder in (*OWN, SHIPPED) for file in folder.glob("*.json")})
        raise _unusable(str(path), f"a path where no file is, and no name of a suite (those are {', '.join(names)})")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _unusable(str(path), f"a file that is not JSON ({error})") from error


def _from_mapping(content: Any, place: str) -> Any:
    from great_expectations import ExpectationSuite

    if not isinstance(content, Mapping) or "expectations" not in content:
        raise _unusable(place, "JSON without the key 'expectations'")
    content = dict(content)
    if "expectation_suite_name" in content:  # as GX wrote it before version 1
        content["name"] = content.pop("expectation_suite_name")
    expectations = []
    for number, entry in enumerate(content["expectations"]):
        entry = dict(entry)
        if "expectation_type" in entry:
            entry["type"] = entry.pop("expectation_type")
        if "type" not in entry:
            raise _unusable(f"{place}, expectation {number}", "an entry without the key 'type'")
        expectations.append(entry)
    known = {key: content[key] for key in ("meta", "notes", "id", "suite_parameters") if content.get(key)}
    refused = _refused(expectations)
    if refused:
        raise _unusable(place, "expectations that Great Expectations refuses: " + "; ".join(refused))
    return ExpectationSuite(name=content.get("name") or "suite", expectations=expectations, **known)


def _refused(entries: list[dict[str, Any]]) -> list[str]:
    """Every entry that GX cannot build. (A suite that is given such an entry logs it and goes on without it.)"""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    refused = []
    for number, entry in enumerate(entries):
        try:
            ExpectationConfiguration(**entry).to_domain_obj()
        except Exception as error:
            refused.append(f"number {number} ({entry['type']}): {type(error).__name__}: {error}")
    return refused


def _unusable(place: str, received: str) -> DataError:
    return DataError(
        explain(
            place,
            received=received,
            expected="an ExpectationSuite, a list of expectations, a dictionary, the path of a JSON file, or a name",
            todo="Build it with great_expectations and save it with `json.dumps(suite.to_json_dict())`.",
        )
    )
