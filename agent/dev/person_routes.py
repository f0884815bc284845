"""The calls of a person: register, look at, change, remove and command collectors."""

from __future__ import annotations

from flask import Blueprint, Response

from agent.dev.bodies import ChangeBody, CommandBody, RefusalError, RegisterBody, read_model
from agent.dev.collector_routes import handed_out
from agent.dev.context import Context, answer
from agent.dev.registry import ORGANIZATION_ID, Collector, Command, DuplicateNameError
from agent.dev.store import Json

_NAME_TAKEN = "A collector with this name already exists"


class PersonRoutes:
    """Each method is one call; each raises RefusalError for what it does not accept."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def blueprint(self) -> Blueprint:
        """The routes, to be registered with the application."""
        routes = Blueprint("person", __name__)
        every, one = "/api/v1/collectors", "/api/v1/collectors/<collector_id>"
        routes.add_url_rule(f"{every}/register", view_func=self.register, methods=["POST"])
        routes.add_url_rule(every, view_func=self.list_all, methods=["GET"])
        routes.add_url_rule(one, view_func=self.show, methods=["GET"])
        routes.add_url_rule(one, view_func=self.change, methods=["PATCH"])
        routes.add_url_rule(one, view_func=self.delete, methods=["DELETE"])
        routes.add_url_rule(f"{one}/commands", view_func=self.list_commands, methods=["GET"])
        routes.add_url_rule(f"{one}/commands", view_func=self.command, methods=["POST"])
        for word in ("start", "stop", "collect"):
            routes.add_url_rule(f"{one}/{word}", word, self.simple_command, methods=["POST"], defaults={"word": word})
        return routes

    def register(self) -> Response:
        """A new collector; its key is shown here only. Teams are the positive numbers."""
        self._context.require_person()
        body = read_model(self._context.body(), RegisterBody)
        if body.team_id < 1:
            raise RefusalError(404, "Team not found")
        try:
            new = self._context.registry.register(
                body.name,
                body.type,
                team_id=body.team_id,
                settings=body.model_dump(include={"config", "collection_interval_minutes", "auto_collect"}),
            )
        except DuplicateNameError:
            raise RefusalError(400, _NAME_TAKEN) from None
        shown = {name: getattr(new, name) for name in ("id", "name", "type", "api_key", "team_id")}
        message = "Collector registered. Keep the API key: it is not shown again."
        return answer({**shown, "organization_id": ORGANIZATION_ID, "message": message}, 201)

    def list_all(self) -> Response:
        """All collectors."""
        self._context.require_person()
        return answer([self._shown(each) for each in self._context.registry.collectors()])

    def show(self, collector_id: str) -> Response:
        """One collector."""
        self._context.require_person()
        return answer(self._shown(self._context.named(collector_id)))

    def change(self, collector_id: str) -> Response:
        """Change what the body names. The collector is not told; that is what update_config is for."""
        self._context.require_person()
        body = read_model(self._context.body(), ChangeBody)
        collector = self._context.named(collector_id)
        try:
            self._context.registry.change(collector, body.model_dump(exclude_unset=True))
        except DuplicateNameError:
            raise RefusalError(400, _NAME_TAKEN) from None
        return answer(self._shown(collector))

    def delete(self, collector_id: str) -> Response:
        """Remove a collector; its key is refused from now on."""
        self._context.require_person()
        self._context.registry.delete(self._context.named(collector_id))
        return answer({"status": "ok", "message": "Collector deleted"})

    def simple_command(self, collector_id: str, word: str) -> Response:
        """Queue start, stop or collect."""
        self._context.require_person()
        return self._queue(self._context.named(collector_id), word, {})

    def command(self, collector_id: str) -> Response:
        """Queue any word with any parameters."""
        self._context.require_person()
        body = read_model(self._context.body(), CommandBody)
        return self._queue(self._context.named(collector_id), body.command, body.params)

    def _queue(self, collector: Collector, word: str, params: Json) -> Response:
        queued = self._context.registry.queue(collector.id, word, params)
        return answer({"status": "ok", "message": f"Command {word} queued", "command_id": queued.id})

    def list_commands(self, collector_id: str) -> Response:
        """All commands of a collector with their state and result, oldest first."""
        self._context.require_person()
        collector = self._context.named(collector_id)
        return answer([self._told(each) for each in self._context.registry.commands(collector.id)])

    def _told(self, command: Command) -> Json:
        state = command.state(self._context.now())
        return {
            **handed_out(command),
            "status": state,
            "success": command.success,
            "result": command.result,
        }

    def _shown(self, collector: Collector) -> Json:
        beat = collector.last_heartbeat
        return {
            "id": collector.id,
            "name": collector.name,
            "type": collector.type,
            "team_id": collector.team_id,
            "organization_id": ORGANIZATION_ID,
            "status": collector.status(self._context.now()),
            "config": collector.config,
            "collection_interval_minutes": collector.collection_interval_minutes,
            "auto_collect": collector.auto_collect,
            "created_at": collector.created_at.isoformat(),
            "last_heartbeat": beat.isoformat() if beat else None,
            "stats": collector.stats,
            "last_error": collector.error,
        }
