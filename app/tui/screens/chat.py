"""Chat: questions about the study to the language model; answers stream in, and what it proposes waits in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static
from textual.worker import Worker, WorkerState, get_current_worker

from app.text.printable import printable
from app.tui.screens.base import Pane
from app.tui.screens.proposals import Proposals
from engine.base.errors import DjsbError
from engine.base.secrets import redact

if TYPE_CHECKING:
    from textual.widgets import Markdown
    from textual.widgets.markdown import MarkdownStream

    from engine.journal.store import Row

NOBODY = "No model is asked: {problem}. Everything else works without one."
UNKNOWN = "⚠ not in this study"


class Missing(Message):
    """Why no model can be asked, or None."""

    def __init__(self, problem: str | None) -> None:
        super().__init__()
        self.problem = problem


class Said(Message):
    """A piece of the answer."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Over(Message):
    """The answer is complete, or ended in an error."""

    def __init__(self, found: Row | None, error: str = "") -> None:
        super().__init__()
        self.found, self.error = found, error


class Chat(Pane):
    """A conversation; it lasts as long as the UI."""

    title_text = "Chat"
    help_text = """\
Ask the study's language model (agent.model in study.yaml; OPENAI_API_KEY, or OPENAI_BASE_URL for a
server of your own). It sees a digest of the study and may look closer with read-only tools. Ids that
an answer cites and this study does not have are marked ⚠. "Try X" becomes a proposal that waits on
screen 4; the model can decide nothing. Enter asks; Escape ends an answer that comes, and else leaves
the line, so that the keys of the screens work; i goes back to the line; o goes to the last proposal
that came of the conversation.
"""
    DEFAULT_CSS = """
    Chat #talk { height: 1fr; padding: 0 1; }
    Chat Markdown { padding: 0; margin: 0 0 0 2; }
    Chat .question { text-style: bold; margin-top: 1; }
    Chat .after { margin: 0 0 0 2; color: $text-muted; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "write", "Ask", id="chat.ask"),
        Binding("o", "open", "Its proposal", id="chat.open"),
        Binding("escape", "leave", "Stop, or leave the line", id="chat.stop"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.conversation: Any = None
        self.problem: str | None = None
        self.proposals: list[str] = []
        self._told = ""
        self._stream: MarkdownStream | None = None
        self._answer: Markdown | None = None
        self._asking: Worker[None] | None = None

    def content(self) -> ComposeResult:
        """What was said, and the line to ask in."""
        yield VerticalScroll(id="talk", can_focus=True)
        yield Input(placeholder="a question, or: try …", id="ask", disabled=True)

    def on_screen_resume(self) -> None:
        """Look anew whether a model can be asked."""
        super().on_screen_resume()
        if self.is_current:  # it is made before anybody looks at it
            self._look()

    @work(thread=True, group="look", exclusive=True)
    def _look(self) -> None:
        from app.commands.chat import Conversation

        self.conversation = self.conversation or Conversation(self.ui.folder)
        try:
            self.post_message(Missing(self.conversation.missing()))
        except DjsbError as error:
            self.post_message(Missing(str(error)))

    @on(Missing)
    async def _show_missing(self, message: Missing) -> None:
        """Say once what is missing; the line is there when nothing is."""
        line, problem = self.query_one("#ask", Input), message.problem
        line.disabled = problem is not None
        if problem and problem != self._told:
            await self._add(Static(printable(NOBODY.format(problem=problem)), classes="missing", markup=False))
        self._told = problem or ""
        if not problem:
            line.focus()

    async def _add(self, widget: Static | Markdown) -> None:
        talk = self.query_one("#talk", VerticalScroll)
        await talk.mount(widget)
        talk.anchor()

    # -- asking --------------------------------------------------------------------------------

    @on(Input.Submitted, "#ask")
    async def _ask(self, event: Input.Submitted) -> None:
        question = event.value.strip()
        if not question:
            return
        if self._asking is not None:
            self.notify("an answer is coming; Escape ends it", severity="warning")
            return
        event.input.value = ""
        await self._add(Static(f"› {printable(question)}", classes="question", markup=False))
        from textual.widgets import Markdown

        self._answer = Markdown(open_links=False)
        await self._add(self._answer)
        self._stream = Markdown.get_stream(self._answer)
        self._asking = self._listen(question)

    @work(thread=True, group="ask", exit_on_error=False)
    def _listen(self, question: str) -> None:
        """Read the answer in a thread; pieces are posted."""
        worker = get_current_worker()
        self.conversation.stop = lambda: worker.is_cancelled
        found: Row | None = None
        try:
            for piece in self.conversation.ask(question):
                if isinstance(piece, str):
                    self.post_message(Said(printable(piece)))
                else:
                    found = piece
        except (DjsbError, OSError) as error:
            self.post_message(Over(found, str(error)))
        else:
            self.post_message(Over(found))

    @on(Said)
    async def _show_piece(self, message: Said) -> None:
        if self._stream:
            await self._stream.write(message.text)

    @on(Over)
    async def _show_end(self, message: Over) -> None:
        """What the answer cites, marks on ids that are not there, what was queued."""
        if self._stream:
            await self._stream.stop()
        self._stream = self._asking = None
        if message.error:
            await self._add(Static(Text(printable(message.error), "bad"), classes="after"))
        if found := message.found:
            text = printable(found["answer"])
            for one in found["citations"]["unknown"]:
                text = text.replace(one, f"{one} ({UNKNOWN})")
            if self._answer:
                await self._answer.update(text)
            self.proposals += found["proposals"]
            if parts := _after(found):
                await self._add(Static(Content("\n").join(parts), classes="after"))

    @on(Worker.StateChanged)
    async def _failed(self, event: Worker.StateChanged) -> None:
        """What nobody expected ends an answer too, in one line."""
        if event.worker is self._asking and event.state == WorkerState.ERROR:
            await self._show_end(Over(None, f"internal error: {told(event.worker.error)}; please report it"))

    def action_leave(self) -> None:
        """End the answer that comes; without one leave the line."""
        if self._asking is not None:
            self._asking.cancel()
        else:
            self.query_one("#talk").focus()

    def action_write(self) -> None:
        """Back to the line."""
        self.query_one("#ask").focus()

    def action_open(self, proposal: str = "") -> None:
        """Go to a proposal that came of the conversation, by default the last."""
        if not (proposal or self.proposals):
            self.notify("no proposal came of this conversation", severity="warning")
            return
        self.app.switch_mode("proposals")
        if isinstance(screen := self.app.screen, Proposals):
            screen.go_to(proposal or self.proposals[-1])


def told(error: BaseException | None) -> str:
    """An unexpected error in one line, without keys."""
    return redact(" ".join(f"{type(error).__name__}: {error}".split()))[:200]


def _after(found: Row) -> list[Content]:
    """Lines below an answer: what its ids are, and links to what was queued."""
    lines = []
    if known := found["citations"]["known"]:
        lines.append(Content("cites " + "; ".join(f"{k} {printable(v)}" for k, v in known.items())))
    lines += [Content(f"⚠ [{one}] is not in this study") for one in found["citations"]["unknown"]]
    for one in found["proposals"]:
        link = f"[@click=screen.open('{one}')]$id[/] waits for your decision (o)"
        lines.append(Content.from_markup(f"queued: {link}", id=one))
    return lines
