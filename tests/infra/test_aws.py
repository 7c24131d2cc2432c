from pathlib import Path
from typing import Any

import pytest
import yaml
from cfnlint.api import ManualArgs, lint_file
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

AWS = Path(__file__).parents[2] / "infra/aws"
DOCS = AWS.parents[1] / "docs/output.md"


class Tags(yaml.SafeLoader):
    """Takes CloudFormation's !Ref and the like for what they are of."""


def content(loader: Tags, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)


Tags.add_multi_constructor("!", content)


def template() -> Any:
    return yaml.load((AWS / "openvis.yaml").read_text(), Tags)  # noqa: S506 - a SafeLoader


def launcher() -> Any:
    return yaml.safe_load((AWS / "autoscaler.yaml").read_text())


def test_the_stack_is_sound() -> None:
    regions = ["us-east-1", "eu-central-1"]
    assert lint_file(AWS / "openvis.yaml", config=ManualArgs(regions=regions)) == []


def test_a_mistake_in_the_stack_is_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((AWS / "openvis.yaml").read_text().replace("RetentionInDays", "RetentionDays"))
    assert lint_file(wrong, config=ManualArgs(regions=["us-east-1"]))


def test_jobs_have_the_rights_that_are_documented_and_no_more() -> None:
    documented = {
        right.strip()
        for line in DOCS.read_text().splitlines()
        if line.startswith("| s3:")
        for right in line.split("|")[1].split(",")
    }
    statements = template()["Resources"]["JobPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    granted = {
        right
        for each in statements
        for right in (each["Action"] if isinstance(each["Action"], list) else [each["Action"]])
    }
    assert granted == documented
    for each in statements:
        assert each["Resource"] != "*"


def test_the_roles_are_those_of_the_service_accounts() -> None:
    accounts = yaml.safe_load_all((AWS.parent / "kubernetes/base/service_accounts.yaml").read_text())
    trust = template()["Resources"]["JobRole"]["Properties"]["AssumeRolePolicyDocument"]
    for account in accounts:
        assert f'"system:serviceaccount:${{Namespace}}:{account["metadata"]["name"]}"' in trust


def test_the_log_group_is_the_one_that_is_written_to() -> None:
    name = template()["Resources"]["Logs"]["Properties"]["LogGroupName"]
    assert f"log_group_name    {name}\n" in (AWS.parent / "kubernetes/logs/fluent-bit.conf").read_text()


def test_the_launcher_takes_the_file() -> None:
    validate_config(prepare_config(launcher()))
    with pytest.raises(ValidationError):
        validate_config(prepare_config(launcher() | {"max_wokers": 3}))


def test_the_launcher_uses_what_the_stack_makes() -> None:
    resources, found = template()["Resources"], launcher()
    made = {
        each["Properties"]["InstanceProfileName"]
        for each in resources.values()
        if each["Type"] == "AWS::IAM::InstanceProfile"
    }
    used = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in found["available_node_types"].values()}
    assert used == made
    assert f"/{resources['Images']['Properties']['RepositoryName']}:" in found["docker"]["image"]
    ends = next(
        each
        for each in resources["HeadRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        if each["Sid"] == "EndOwn"
    )
    assert ends["Condition"]["StringEquals"] == {"aws:ResourceTag/ray-cluster-name": found["cluster_name"]}


def test_the_head_cannot_make_other_machines_its_own() -> None:
    """Who may tag any machine may end it: the tag is what rights to end depend on."""
    statements = template()["Resources"]["HeadRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    tags = [each["Condition"]["StringEquals"] for each in statements if "ec2:CreateTags" in each["Action"]]
    assert tags == [{"ec2:CreateAction": "RunInstances"}, {"aws:ResourceTag/ray-cluster-name": "openvis"}]


def test_ssh_is_open_to_the_launcher_alone() -> None:
    """To machines without a group of their own, Ray gives one that lets everybody in."""
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in launcher()["available_node_types"].values())
    resources = template()["Resources"]
    (ssh,) = resources["Machines"]["Properties"]["SecurityGroupIngress"]
    assert (ssh["FromPort"], ssh["ToPort"], ssh["CidrIp"]) == (22, 22, "SshCidr")
    assert resources["MachinesReachEachOther"]["Properties"]["SourceSecurityGroupId"] == "Machines"
