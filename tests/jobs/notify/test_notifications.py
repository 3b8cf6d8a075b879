"""Notifications: their messages, a real webhook that fails in each way, and what it may cost."""

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from jobs.costs.run_cost import DeviceHours, RunCost
from jobs.errors import ConfigError, NotificationError, WebhookRefusedError
from jobs.notify.messages import Message, RunFacts, RunMessages
from jobs.notify.notifier import MAX_WAITING, Notifier
from jobs.notify.run_notices import RunNotices
from jobs.notify.webhook import Webhook
from jobs.records.run_status import RunStop, RunSummary
from jobs.redaction import MASK, redact
from jobs.settings.run_config import NotifyConfig, RunConfig, load_config
from tests.builders.records import RUN_ID
from tests.builders.webhook import SECRET_PATH, WebhookServer, served

FACTS = RunFacts(RUN_ID, "spring", "s3://renders/spring", 1_990)
SUMMARY = RunSummary(
    run_id=RUN_ID,
    num_committed=1_987,
    num_quarantined=3,
    num_failures=12,
    num_workers_lost=1,
    busy_share=0.991,
    stop=None,
    output_day=None,
    deadline=None,
    is_finished=True,
    num_left=0,
    wall_s=36_000.0,
    stage_totals_s={"denoise": 100.0},
    cost=RunCost.of((DeviceHours.of("wan", "cpu", {"denoise": 9.5, "lost": 0.5}, 2.5),), "USD"),
)
STOPPED = replace(SUMMARY, stop=RunStop("StoppedError", "by SIGTERM; run it again to go on"))
AT = "2026-01-31T12:00:00.000Z"


def message(text: str = "hello", summary: RunSummary | None = None) -> Message:
    return Message("finished", text, FACTS, AT, summary)


def sent_by(
    act: Callable[[RunMessages], None], config: NotifyConfig | None = None
) -> list[Message]:
    sent: list[Message] = []
    act(RunMessages(config or NotifyConfig(), FACTS, sent.append, lambda: AT))
    return sent


def test_the_messages_of_a_run_say_what_it_did() -> None:
    def act(messages: RunMessages) -> None:
        messages.started()
        messages.ended(SUMMARY)

    start, end = sent_by(act)
    name = f"nagfarm run {RUN_ID}"
    assert start.text == f"{name} started: 1,990 clips of spring to render (s3://renders/spring)"
    assert end.text == (
        f"{name} finished after 10 h: 1,987 clips committed, 3 quarantined, 12 attempts failed, "
        "devices 99% busy, 10.0 device-hours, USD 25.00, 5.0% wasted (lost 0.50 h) "
        "(s3://renders/spring)"
    )
    assert json.loads(end.body()) == {
        "text": end.text,
        "event": "finished",
        "time": AT,
        "run": RUN_ID,
        "manifest": "spring",
        "output": "s3://renders/spring",
        "num_clips": 1_990,
        "summary": {
            "run_id": RUN_ID,
            "num_committed": 1_987,
            "num_quarantined": 3,
            "num_failures": 12,
            "num_workers_lost": 1,
            "busy_share": 0.991,
            "stop": None,
            "output_day": None,
            "deadline": None,
            "cost": {**asdict(SUMMARY.cost), "models": [asdict(SUMMARY.cost.models[0])]},
            "is_finished": True,
            "num_left": 0,
            "wall_s": 36_000.0,
            "stage_totals_s": {"denoise": 100.0},
        },
    }


def test_a_run_that_stopped_says_why_and_ends_once() -> None:
    def act(messages: RunMessages) -> None:
        messages.ended(STOPPED)
        messages.ended(SUMMARY)

    (end,) = sent_by(act)
    assert end.event == "stopped"
    assert "; by SIGTERM; run it again to go on (s3://" in end.text


def test_failures_that_reach_the_limit_are_one_message() -> None:
    def act(messages: RunMessages) -> None:
        for num_failures in (0, 1, 2, 3, 10):
            messages.failed(num_failures, lambda: SUMMARY)

    (one,) = sent_by(act, NotifyConfig(failures=2))
    assert one.event == "failures"
    assert "has 2 failed attempts so far: 1,987 clips committed" in one.text
    assert sent_by(act, NotifyConfig(failures=None)) == []
    assert sent_by(act, NotifyConfig(failures=11)) == []


def test_only_chosen_events_are_sent() -> None:
    def act(messages: RunMessages) -> None:
        messages.started()
        messages.failed(10, lambda: SUMMARY)
        messages.ended(SUMMARY)

    assert [one.event for one in sent_by(act)] == ["started", "failures", "finished"]
    chosen = NotifyConfig(events=("stopped", "failures"))
    assert [one.event for one in sent_by(act, chosen)] == ["failures"]


def test_no_text_of_a_stranger_rings_for_a_channel_or_shows_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "planted-password")
    body = message("<!channel> & <http://evil|bank>\n\x1b[2J planted-password").body().decode()
    text = json.loads(body)["text"]
    assert text == (f"&lt;!channel&gt; &amp; &lt;http://evil|bank&gt;\\u000a\\u001b[2J {MASK}")
    assert len(message(100_000 * "x").body()) < 5_000


def test_a_webhook_takes_json() -> None:
    with served(WebhookServer()) as server:
        Webhook(server.url, 10.0).post(message(summary=SUMMARY).body())
    (body,) = server.bodies
    assert (body["text"], body["summary"]["num_committed"]) == ("hello", 1_987)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, NotificationError),
        (503, NotificationError),
        (429, NotificationError),
        (400, WebhookRefusedError),
        (404, WebhookRefusedError),
        (302, WebhookRefusedError),
        (307, WebhookRefusedError),
    ],
)
def test_an_answer_says_if_another_try_helps_and_no_redirect_is_followed(
    status: int, kind: type[NotificationError]
) -> None:
    with (
        served(WebhookServer([status], {"Location": "/elsewhere"})) as server,
        pytest.raises(NotificationError, match=f"the webhook answered {status}") as caught,
    ):
        Webhook(server.url, 10.0).post(b"{}")
    assert type(caught.value) is kind
    assert len(server.bodies) == 1


def test_a_server_that_hangs_or_is_gone_is_one_short_error() -> None:
    with served(WebhookServer()) as server:
        server.may_answer.clear()
        with pytest.raises(NotificationError, match=r"did not answer within 0\.1 s"):
            Webhook(server.url, 0.1).post(b"{}")
    with pytest.raises(NotificationError, match="cannot be reached: Connection refused") as caught:
        Webhook(server.url, 10.0).post(b"{}")
    assert "planted" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"\x00\x01 no HTTP\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotificationError, match="cannot be reached") as caught:
            Webhook(f"http://127.0.0.1:{listener.getsockname()[1]}{SECRET_PATH}", 10.0).post(b"{}")
        thread.join()
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/planted",
        "ftp://host/planted",
        "hooks.slack.com/services/planted",
        "https:///planted",
        "http://[planted",
        "https://host/planted secret",
        "https://host/planted\nHost: x",
    ],
)
def test_a_url_that_cannot_be_one_is_named_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAGFARM_WEBHOOK_URL", url)
    notices = RunNotices(NotifyConfig(), FACTS)
    notices.started()
    notices.close()
    (line,) = notices.news()
    assert line == (
        "NAGFARM_WEBHOOK_URL: expected a URL that begins with https:// or http://; no notification "
        "is sent"
    )


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://hooks..example/planted", ""),
        (f"https://{'a' * 64}.example/planted", ""),
        ("http://hooks.example/planted", "http:/planted"),
    ],
)
def test_a_host_or_a_proxy_that_cannot_be_one_costs_the_message_alone(
    url: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(WebhookRefusedError, match="cannot be reached: [A-Za-z]*Error") as caught:
        Webhook(url, 10.0).post(b"{}")
    assert "planted" not in str(caught.value)


def test_a_message_is_sent_again_after_a_passing_failure_and_in_order() -> None:
    with served(WebhookServer([500, 503])) as server:
        notifier = Notifier(Webhook(server.url, 10.0).post, (0.0, 0.0))
        notifier.send(message("first"))
        notifier.send(message("second"))
        notifier.close(60.0)
    assert [body["text"] for body in server.bodies] == ["first", "first", "first", "second"]
    assert notifier.news() == []


def test_a_message_that_is_refused_or_fails_each_time_is_named_in_the_log() -> None:
    with served(WebhookServer([404, 500, 500])) as server:
        notifier = Notifier(Webhook(server.url, 10.0).post, (0.0,))
        for text in ("refused", "failing", "taken"):
            notifier.send(message(text))
        notifier.close(60.0)
    assert notifier.news() == [
        "the notification 'finished' was not sent: the webhook answered 404",
        "the notification 'finished' was not sent: the webhook answered 500",
    ]
    assert [body["text"] for body in server.bodies] == ["refused", "failing", "failing", "taken"]


def test_a_webhook_that_hangs_holds_up_neither_a_message_nor_the_end() -> None:
    with served(WebhookServer()) as server:
        server.may_answer.clear()  # until the end of the block
        notifier = Notifier(Webhook(server.url, 600.0).post)
        notifier.send(message("first"))
        server.wait()
        notifier.send(message("second"))
        notifier.close(0.1)
        assert not server.may_answer.is_set()
        assert len(server.bodies) == 1
    assert notifier.news() == 2 * ["the notification 'finished' was not sent: the run has ended"]


def test_a_stop_during_the_wait_for_the_last_message_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(WebhookServer()) as server:
        server.may_answer.clear()
        monkeypatch.setenv("NAGFARM_WEBHOOK_URL", server.url)
        notices = RunNotices(NotifyConfig(timeout_s=600.0, end_s=600.0), FACTS)
        notices.hurry()  # a stop that the run itself has heeded
        notices.ended(STOPPED)
        server.wait()
        closing = threading.Thread(target=notices.close)
        closing.start()
        while closing.is_alive():
            notices.hurry()
            closing.join(0.01)
    assert len(notices.news()) == 1


def test_a_stop_before_the_wait_leaves_the_last_message_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served(WebhookServer()) as server:
        monkeypatch.setenv("NAGFARM_WEBHOOK_URL", server.url)
        notices = RunNotices(NotifyConfig(end_s=60.0), FACTS)
        notices.hurry()
        notices.ended(STOPPED)
        notices.close()
    assert notices.news() == []
    assert [body["event"] for body in server.bodies] == ["stopped"]


def test_the_queue_is_bounded() -> None:
    held = threading.Event()

    def hold(_body: bytes) -> None:
        held.wait(60)

    notifier = Notifier(hold)
    for _ in range(MAX_WAITING + 3):
        notifier.send(message())
    assert len(notifier.news()) == 3
    held.set()
    notifier.close(60.0)
    assert notifier.news() == []


def test_without_a_webhook_no_thread_starts_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NAGFARM_WEBHOOK_URL", raising=False)
    notices = RunNotices(NotifyConfig(), FACTS)
    before = threading.active_count()
    notices.started()
    notices.failed(99, lambda: SUMMARY)
    notices.ended(SUMMARY)
    notices.close()
    assert threading.active_count() == before
    assert notices.news() == []


def test_another_variable_may_hold_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(WebhookServer()) as server:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", server.url)
        notices = RunNotices(NotifyConfig(webhook_variable="SLACK_WEBHOOK_URL"), FACTS)
        notices.started()
        notices.close()
    assert [body["event"] for body in server.bodies] == ["started"]


@pytest.mark.parametrize(
    "setting",
    [
        "notify.webhook_variable=https://hooks.slack.com/services/planted",
        "notify.webhook_variable=SLACK_HOOK",
        "notify.webhook_variable=",
        "notify.events=[begun]",
        "notify.failures=0",
        "notify.timeout_s=0",
        "notify.timeout_s=1e10",
        "notify.end_s=-1",
    ],
)
def test_a_wrong_setting_is_refused_without_the_url(setting: str) -> None:
    with pytest.raises(ConfigError, match="notify") as caught:
        load_config(overrides=[setting])
    assert "planted" not in str(caught.value)


def test_the_settings_of_the_file_are_those_of_the_code() -> None:
    assert load_config().notify == RunConfig().notify


def test_the_url_is_masked_wherever_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_WEBHOOK_URL", "https://chat.example/planted-path")
    assert redact("POST https://chat.example/planted-path failed") == f"POST {MASK} failed"
    assert "T00/B00" not in redact("https://hooks.slack.com/services/T00/B00/XXXX")
