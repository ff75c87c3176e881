"""What every estimator's fit shares: all or nothing, and progress."""

import time
from contextlib import contextmanager, nullcontext

try:  # scikit-learn 1.9; experimental there
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # an older scikit-learn: `verbose` prints instead

    class CallbackSupportMixin:
        """Stands in for scikit-learn's mixin where it does not exist."""

    def with_callbacks(method):
        """The method itself."""
        return method


__all__ = ["CallbackSupportMixin", "FitProgress", "unfitted_on_error", "with_callbacks"]


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
    found = [n for n in vars(estimator) if n.endswith("_") or n == "_n_features_out"]
    for name in found:
        delattr(estimator, name)


class FitProgress:
    """The stages of one fit, told to scikit-learn's callbacks, or printed."""

    def __init__(self, estimator, n_stages, X, y, *, verbose=0):
        self.estimator, self.data, self.verbose = estimator, {"X": X, "y": y}, verbose
        self.context = None
        if hasattr(estimator, "_init_callback_context"):
            self.context = estimator._init_callback_context(max_subtasks=n_stages)
            self.context.call_on_fit_task_begin(estimator=estimator, **self.data)

    @contextmanager
    def stage(self, name, sub_estimator=None):
        """One stage; the callbacks of a sub-estimator's fit hang below it."""
        start = time.perf_counter()
        if self.context is None:
            yield
        else:
            context = self.context.subcontext(task_name=name)
            supports = hasattr(sub_estimator, "set_callbacks")
            with context.propagate_callback_context(sub_estimator) if supports else nullcontext():
                context.call_on_fit_task_begin(estimator=self.estimator, **self.data)
                yield
                context.call_on_fit_task_end(estimator=self.estimator, **self.data)
        if self.verbose:
            seconds = time.perf_counter() - start
            print(f"[{type(self.estimator).__name__}] {name}: {seconds:.1f} s")

    def end(self):
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.estimator, **self.data)
