"""A review: finds tracks, shows them, and stores what is decided about them. Knows nothing of the network."""

import getpass
import threading
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openvis_model.prompts import parse_prompt
from pipelines.archive.reviews import REVIEWS, SAME_TRACKS, Decision, Reviews
from pipelines.archive.tables import open_labels
from pipelines.review.catalogue import Catalogue, Filter, is_renamed
from pipelines.review.config import ReviewConfig
from pipelines.review.decided import Decided, Row
from pipelines.review.follower import Follower, Job
from pipelines.review.images import FRAME, Frames, Recent, best_mask, crop, jpeg
from pipelines.review.media import is_playable
from pipelines.review.search import SOON_S, AbsentError, Found, Search
from pipelines.review.similarity import Embeddings
from pipelines.review.timing import ends_of, frames_by_track, runs_of
from pipelines.review.video_masks import VideoMasks, with_followed
from pipelines.storage.files import bad_input

_OF_FOLLOWED = ("track_id", "category", "score", "first_frame", "last_frame", "frames")
_CROP_BYTES = 64 * 2**20
_FOUND = 16  # results that can still be scrolled through


class Review:
    """A review of one archive. Methods may be called by several threads.

    Args:
        config: the review.

    Attributes:
        read_only: why decisions cannot be stored; None if they can.
        search: finds similar tracks.

    Raises:
        ValueError: the archive has no labels, or one of its files is damaged.
    """

    def __init__(self, config: ReviewConfig) -> None:
        self.config = config
        self.results = open_labels(config.labels)
        self.reviewer = config.reviewer or getpass.getuser()
        self.read_only = self._check_writable()
        with bad_input("labels"):
            self.decided = Decided(Reviews(self.results.storage))
            self.catalogue = Catalogue(self.results, self.decided)
        self.search = Search(self.results, config.checkpoint, self.catalogue)
        self._follower = Follower(self.results.storage, config.checkpoint)
        self._frames = Frames()
        self._found: Recent[str, Found] = Recent(_FOUND)
        self._masks = VideoMasks(self.results)
        self._crops: Recent[tuple[str, str, int], bytes] = Recent(_CROP_BYTES, len)
        self._lock, self._keeping, self._listing = threading.Lock(), threading.Lock(), threading.RLock()
        self._last = self.decided.latest

    def warm_up(self) -> None:
        """Sorts tracks, and loads what searching needs, the model and the embeddings; until then, the page says so."""
        self.catalogue.warm_up()
        self.search.warm_up()

    def refresh(self) -> None:
        """Takes over what others decided, and labels that were added or replaced since."""
        with bad_input("labels"):
            decided = self.decided.refresh()
            self.catalogue.decide(decided)
            self.search.refresh()
            with self._listing:
                embeddings = self._list_again() if self._has_new() else None
            if embeddings:
                embeddings.catalogue.warm_up()
                embeddings.load()

    def _has_new(self) -> bool:
        has_new = set(self.results.parts()) != set(self.catalogue.listed)
        return has_new or self.catalogue.additions.names() != self.catalogue.known

    def _list_again(self) -> Embeddings:
        """Takes over the tracks that there are now; returns their embeddings, which are not loaded yet."""
        with self._listing:  # otherwise an older list could replace a newer one
            revision, latest = self.decided.revision, self.catalogue
            self.catalogue = Catalogue(self.results, self.decided)
            self._found.forget(lambda found: found.catalogue not in (latest, self.catalogue))  # each is a whole archive
            if self.decided.revision != revision:  # decisions that the list before may have got
                self.catalogue.decide(self.decided.tracks())
            return self.search.list_again(self.catalogue)

    def state(self) -> Row:
        """Returns what may change while the page is open."""
        return {
            "revision": self.decided.revision,
            "catalogue": self.catalogue.id,
            "numbering": self.catalogue.numbering,
            "read_only": self.read_only,
        } | self.search.state()

    def archive(self) -> Row:
        """Returns what the page shows of the whole archive."""
        about = {"labels": self.results.storage.root, "reviewer": self.reviewer}  # also a key of what a browser keeps
        return about | self.state() | self.catalogue.summary() | {"categories": self.catalogue.categories()}

    def find(self, wanted: Filter, *, text: str | None = None, like: int | None = None) -> Row:
        """Finds tracks; returns an id under which `rows` has them, and their number.

        Args:
            wanted: the filter.
            text: sorts by similarity to a text; synonyms are separated by commas.
            like: sorts by similarity to a track, given by its row.

        Raises:
            ValueError: the text cannot be read, or the search is off; says why.
        """
        if like is not None:
            return self._keep(self.search.like_track(wanted, like))
        if text is not None:
            return self._keep(self.search.like_text(wanted, text))
        return self._keep(Found(catalogue=self.catalogue, rows=self.catalogue.find(wanted)))

    def find_like_image(self, wanted: Filter, image: bytes) -> Row:
        """Finds tracks that are similar to the most prominent object of an image; as `find`.

        Raises:
            ValueError: the image cannot be read or shows no object, or the search is off.
        """
        return self._keep(self.search.like_image(wanted, image))

    def rows(self, found: str, offset: int, limit: int) -> list[Row]:
        """Returns some of the tracks that were found, with the decisions about them.

        Raises:
            AbsentError: nothing is known under this id.
        """
        result = self._found.get(found, partial(_gone, found))
        chosen = result.rows[offset : offset + limit]
        rows = result.catalogue.rows(chosen.tolist())
        similar = {} if result.cosines is None else dict(zip(chosen.tolist(), result.cosines[offset:], strict=False))
        for row in rows:
            row["pieces"] = self.pieces(row["video_id"], row["track_id"], row["category"])
            if row["row"] in similar:
                row["similarity"] = float(similar[row["row"]])
        return rows

    def video(self, video_id: str, followed: str | None = None) -> Row:
        """Returns a video, its tracks with the times at which each is seen, and when its labelled frames are shown.

        Args:
            video_id: id of the video.
            followed: id of what was followed in it, which is shown as a track like the others.

        Raises:
            AbsentError: no such video counts, or nothing was followed under this id.
        """
        video = self._video(video_id)
        job = self._job_of(video_id, followed)
        masks = with_followed(self.masks_of(video), job and job.masks)
        frames, first = np.unique(masks["frame"].to_numpy(), return_index=True)
        times = masks["time_s"].to_numpy()[first]
        shown = ("video_id", "name", "status", "error", "fps", "width", "height", "duration_s")
        ends = ends_of(frames, times, 1 / (video["fps"] or 1))
        tracks = self.catalogue.tracks_of(video_id)
        if job and (track := job.track):
            tracks.append({"row": None, "followed": True} | {name: track[name] for name in _OF_FOLLOWED})
        seen = frames_by_track(masks)
        for track in tracks:
            at = np.searchsorted(frames, seen.get(track["track_id"], frames[:0]))
            track["runs"] = runs_of(times[at], ends[at])
            track["pieces"] = self.pieces(video_id, track["track_id"], track["category"])
        about = {name: video[name] for name in shown} | {"playable": is_playable(video["uri"]), "tracks": tracks}
        return about | {"frames": frames.tolist(), "times": times.tolist(), "ends": ends.tolist()}

    def masks(self, video_id: str, first: int, last: int, followed: str | None = None) -> dict[int, list[Row]]:
        """Returns the masks of some frames of a video, by frame; with those of what was followed, if an id is given."""
        job = self._job_of(video_id, followed)
        masks = with_followed(self.masks_of(self._video(video_id)), job and job.masks)
        some = masks.filter((pc.field("frame") >= first) & (pc.field("frame") <= last))
        frames: dict[int, list[Row]] = {}
        for row in some.select(["frame", "track_id", "x", "y", "width", "height", "rle"]).to_pylist():
            frames.setdefault(row.pop("frame"), []).append(row)
        return frames

    def crop(self, video_id: str, track_id: int) -> bytes:
        """Returns a JPEG of a track where it is seen best.

        Raises:
            AbsentError: there is no such track.
            VideoError: its video cannot be read.
        """
        video = self._video(video_id)

        def make() -> bytes:
            masks = self.masks_of(video).filter(pc.field("track_id") == track_id)
            if not masks.num_rows:
                raise AbsentError(f"track: video {video_id} has no masks of track {track_id}")
            mask = best_mask(masks)
            return crop(self._frames.read(video["uri"], mask["frame"]), mask)

        return self._crops.get((video["part"], video_id, track_id), make)

    def frame(self, video_id: str, frame: int) -> bytes:
        """Returns a JPEG of a frame; raises as `crop`."""
        return jpeg(self._frames.read(self._video(video_id)["uri"], frame), FRAME)

    def uri(self, video_id: str) -> str:
        """Returns where a video is."""
        return str(self._video(video_id)["uri"])

    def decide(self, items: Sequence[Any], reviewer: str) -> list[Row]:
        """Stores decisions, all or none of them.

        Args:
            items: fields of a `Decision` each; fingerprints and time are added.
            reviewer: who decides.

        Returns:
            The tracks that they are about, with the decisions that count now.

        Raises:
            ValueError: an item is no decision about a track of the archive; says which field is wrong.
            OSError: the archive cannot be written to.
        """
        if self.read_only:
            raise ValueError(f"decisions cannot be stored: {self.read_only}")
        decisions = [self._decision(item, reviewer) for item in items]
        changed = self.decided.add(decisions)
        self.catalogue.decide(changed)
        keys = dict.fromkeys((decision.video_id, decision.track_id) for decision in decisions)
        names = {video: self.catalogue.names_of(video) for video in {video for video, _ in keys}}
        return [
            {"video_id": video, "track_id": track, "pieces": self.pieces(video, track, names[video].get(track))}
            for video, track in keys
        ]

    def follow(self, video_id: str, prompt: str) -> Row:
        """Begins to follow an object; returns the id under which `followed` tells how far it is.

        Args:
            video_id: of its video.
            prompt: as `openvis_model.prompts` reads it.

        Raises:
            ValueError: the prompt cannot be read.
        """
        return {"followed": self._follower.start(self._video(video_id), parse_prompt(prompt, "object", "prompt"))}

    def followed(self, followed: str) -> Row:
        """Returns how far an object has been followed, and why it cannot be, if so."""
        return self._job(followed).state()

    def unfollow(self, followed: str) -> Row:
        """Gives up what is being followed, so that others need not wait for it."""
        job = self._job(followed)
        job.unwanted = True
        return job.state()

    def keep(self, followed: str, reviewer: str) -> Row:
        """Stores what was followed as a track of its video, and that the reviewer accepts it.

        After an error it may be called again; it stores one track, however often it is called.

        Returns:
            Id of the video and of the track, and the track's row in the catalogue; None if the labels were replaced.

        Raises:
            ValueError: the archive cannot be written to, or nothing has been found yet.
            OSError: the storage is away.
        """
        if self.read_only:
            raise ValueError(f"the track cannot be stored: {self.read_only}")
        job = self._job(followed)
        video = self._video(job.video["video_id"])
        with self._keeping:
            if job.kept is None:
                job.kept = self._add(job, video, reviewer)
            kept: Row = {"video_id": video["video_id"], "track_id": job.kept}
            if job.track is not None:
                prints = {name: video[name] for name in Decision.__dataclass_fields__ if name.endswith("_fingerprint")}
                about: Row = kept | {"category": job.prompt.name, "reviewer": reviewer, "time": self._now()}
                changed = self.decided.add([Decision(action="accept", **about, **prints)])
                self.catalogue.decide(changed)
                job.track = job.masks = None
        embeddings = self._list_again()
        threading.Thread(target=embeddings.load, daemon=True).start()
        embeddings.ready.wait(SOON_S)
        rows = {track["track_id"]: track["row"] for track in embeddings.catalogue.tracks_of(video["video_id"])}
        return kept | {"row": rows.get(job.kept)}

    def _add(self, job: Job, video: Row, reviewer: str) -> int:
        """Stores what was followed in a video; returns the track's id; raises as `keep`."""
        if job.track is None or job.masks is None:
            raise ValueError("followed: nothing was found yet; wait until it is")
        if any(video[name] != job.video[name] for name in SAME_TRACKS):
            raise ValueError("the video was labelled again meanwhile; follow the object again")
        return self.catalogue.additions.add(job.track, job.masks, video, str(job.prompt), reviewer)

    def _job(self, followed: str) -> Job:
        def absent() -> Job:
            raise AbsentError(f"followed: {followed} is not known, or was long ago; follow the object again")

        return self._follower.job(followed, absent)

    def _job_of(self, video_id: str, followed: str | None) -> Job | None:
        """Returns what was followed in a video; None if no id is given."""
        job = self._job(followed) if followed else None
        if job and job.video["video_id"] != video_id:
            raise AbsentError(f"followed: {followed} is not in video {video_id}; follow the object again")
        return job

    def _decision(self, item: Any, reviewer: str) -> Decision:
        if not isinstance(item, Mapping) or (unknown := set(item) - _FROM_PAGE.keys()):
            raise ValueError(f"decision: {unknown if isinstance(item, Mapping) else item!r} is not known")
        for name, value in item.items():
            if not isinstance(value, _FROM_PAGE[name]) or isinstance(value, bool):
                raise ValueError(f"{name}: is {value!r:.60}; give another")
        values = dict(item)
        video = self._video(values.get("video_id", ""))
        tracks = {row["track_id"] for row in self.catalogue.tracks_of(video["video_id"])}
        for name in ("track_id", "merged_with"):
            if values.get(name) not in (tracks if name == "track_id" else tracks | {None}):
                raise AbsentError(f"{name}: video {video['video_id']} has no track {values.get(name)}")
        if "action" not in values:
            raise ValueError("action: missing")
        prints = {name: video[name] for name in Decision.__dataclass_fields__ if name.endswith("_fingerprint")}
        return Decision(**values, **prints, reviewer=reviewer, time=self._now())

    def _now(self) -> datetime:
        """Returns a time after that of all decisions before, also where a clock is wrong."""
        with self._lock:
            self._last = max(datetime.now(UTC), self._last + _TICK, self.decided.latest + _TICK)
            return self._last

    def pieces(self, video_id: str, track_id: int, category: str | None) -> list[Row]:
        """Returns what was decided about each piece of a track, which has a category."""
        shown = ("split_at", "action", "category", "merged_with", "note", "reviewer")
        return [
            {name: row[name] for name in shown} | {"stale": self.catalogue.is_stale(row) or is_renamed(row, category)}
            for row in self.decided.pieces((video_id, track_id))
        ]

    def _video(self, video_id: str) -> Row:
        video = self.catalogue.video(video_id)
        if video is None:
            raise AbsentError(f"video: {video_id} is not in the archive; load the page again")
        return video

    def masks_of(self, video: Row) -> pa.Table:
        """Returns the masks of a video, given by its row, by frame; raises `AbsentError` if its part was replaced."""
        return self._masks.of(video, self.catalogue)

    def _keep(self, found: Found) -> Row:
        name = uuid.uuid4().hex
        self._found.get(name, lambda: found)
        return {"found": name, "total": len(found.rows), "catalogue": found.catalogue.id}

    def _check_writable(self) -> str | None:
        try:
            self.results.storage.check_writable(REVIEWS)
        except ValueError as error:
            return str(error)
        return None


_FROM_PAGE: Mapping[str, Any] = {
    "review_id": str,
    "video_id": str,
    "track_id": int,
    "split_at": int | None,
    "action": str,
    "category": str | None,
    "merged_with": int | None,
    "note": str | None,
}
"""Fields of a decision that the page gives, and their types."""

_TICK = timedelta(microseconds=1)


def _gone(found: str) -> Found:
    raise AbsentError(f"found: {found} was found too long ago; search again")
