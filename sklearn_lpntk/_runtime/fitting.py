"""What every estimator's fit shares: all or nothing, and progress."""

from contextlib import contextmanager

from .progress import also_listening, shown

try:  # scikit-learn 1.9; experimental there
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # an older scikit-learn: `verbose` prints instead

    class CallbackSupportMixin:
        """Stands in for scikit-learn's mixin where it does not exist."""

    def with_callbacks(method):
        """The method itself."""
        return method


__all__ = ["CallbackSupportMixin", "FitProgress", "unfitted_on_error", "with_callbacks"]

PARTS = 20  # of a stage, that scikit-learn's callbacks are told of


@contextmanager
def unfitted_on_error(estimator):
    """Drop what an earlier fit left; drop it again if this one does not get through."""
    _forget(estimator)
    try:
        yield
    except BaseException:
        _forget(estimator)
        raise


def _forget(estimator):
    for name in [n for n in vars(estimator) if n.endswith("_") or _is_found_in_fit(n)]:
        delattr(estimator, name)


def _is_found_in_fit(name):
    """Whether a private attribute is ours: scikit-learn keeps settings and callbacks in others."""
    own_of_sklearn = name.startswith(("_sk", "_metadata", "__")) or "callback" in name
    return name.startswith("_") and not own_of_sklearn


class FitProgress:
    """The stages of one fit, told to scikit-learn's callbacks while they run, or printed."""

    def __init__(self, estimator, n_stages, X, y, *, verbose=0):
        self.estimator, self.data, self.verbose = estimator, {"X": X, "y": y}, verbose
        self.context = None
        if hasattr(estimator, "_init_callback_context"):
            self.context = estimator._init_callback_context(max_subtasks=n_stages)
            self.context.call_on_fit_task_begin(estimator=estimator, **self.data)

    @contextmanager
    def stage(self, name, sub_estimator=None):
        """One stage; the callbacks of a sub-estimator's fit hang below it."""
        with shown(f"[{type(self.estimator).__name__}] {name}", verbose=self.verbose):
            if self.context is None:
                yield
            elif hasattr(sub_estimator, "set_callbacks"):
                context = self._begun(name)
                with context.propagate_callback_context(sub_estimator):
                    yield
                self._ended(context)
            else:
                context = self._begun(name, max_subtasks=PARTS)
                parts = _Parts(self, context)
                with parts.heard():
                    yield
                parts.make(PARTS)
                self._ended(context)

    def _begun(self, name, **options):
        context = self.context.subcontext(task_name=name, **options)
        context.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        return context

    def _ended(self, context):
        context.call_on_fit_task_end(estimator=self.estimator, **self.data)

    def end(self):
        if self.context is not None:
            self._ended(self.context)


class _Parts:
    """The equal parts of a stage that are done, each a task below it for the callbacks.

    How many loops a stage has is not known: each takes half of what is left of it.
    """

    def __init__(self, progress, context):
        self.progress, self.context, self.made = progress, context, 0
        self.base, self.last = 0, 0.0

    @contextmanager
    def heard(self):
        """Reports become parts, and are printed as before, too."""
        with also_listening(self):
            yield

    def __call__(self, done, total, what):
        if total:
            if done / total < self.last:
                self.base = self.made
            self.last = done / total
            self.make(self.base + int((PARTS - self.base) * self.last / 2))

    def make(self, n):
        while self.made < min(n, PARTS):
            self.made += 1
            part = self.context.subcontext(task_name="part")
            part.call_on_fit_task_begin(estimator=self.progress.estimator, **self.progress.data)
            part.call_on_fit_task_end(estimator=self.progress.estimator, **self.progress.data)
