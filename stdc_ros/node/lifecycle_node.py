# SPDX-License-Identifier: Apache-2.0
"""Managed (lifecycle) node of the segmentation, for Nav2's lifecycle manager and ``ros2 lifecycle``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from stdc_ros.node.camera_segmentation import LISTENER_PERIOD, CameraSegmentation, WorkerHangsError
from stdc_ros.node.declare_parameters import warn_of_unknown

#: Seconds between two checks for signals during configure.
SIGNAL_PERIOD = 0.05


class ConfigureStoppedError(RuntimeError):
    """A signal arrived before the node was configured."""


class SegmentationLifecycleNode(LifecycleNode):
    """Node ``segmentation`` that lifecycle transitions start and stop.

    - configure loads the model, and builds the engine if ``image_size`` is given;
    - activate opens the topics and starts to segment;
    - deactivate stops segmenting and closes the topics;
    - cleanup frees the memory of model and engine.

    A failed transition leads through the error state back to ``unconfigured``; log and diagnostics give the reason. The
    same happens if the backend is lost while the node is active.

    Args:
        signals: List that grows with each signal: configure, which may take minutes, stops at the first one.

    Attributes:
        segmentation: Segmentation that runs on this node.
        failure: Error after which the process cannot continue, or None.

    Raises:
        rclpy.exceptions.ParameterException: A parameter has the wrong type or is out of range.
        ValueError: ``build_only`` is set.
    """

    def __init__(self, signals: Sequence[int] = ()) -> None:
        super().__init__('segmentation')
        self._signals = signals
        self._configurer: Thread | None = None
        self.failure: Exception | None = None
        self.segmentation = CameraSegmentation(self, 'unconfigured')
        if self.segmentation.settings.build_only:
            raise ValueError('build_only is true, expected false with --lifecycle: configure builds for image_size')
        self._overrides_are_checked = False
        warn_of_unknown(self, overrides=False)
        self._refuse_impossible_transitions()
        self.segmentation.create_steady_timer(LISTENER_PERIOD, self._watch)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, and build the engine if ``image_size`` is given."""
        return self._transition('inactive', self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the topics and start to segment."""
        return self._transition('', self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop segmenting and close the topics."""
        lost = self.segmentation.look_for_failure()
        return self._transition('inactive', self.segmentation.stop if lost is None else self._raise_failure)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the memory of model and engine."""
        return self._transition('unconfigured', self.segmentation.unload)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop segmenting and free the memory."""
        return self._transition('finalized', self._end)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, so that the node can be configured again."""
        try:
            self._end()
        except WorkerHangsError as error:  # its thread still uses model and topics
            self.failure = error
            self.segmentation.state = 'finalized'
            return TransitionCallbackReturn.FAILURE
        self.segmentation.state = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop segmenting and destroy the node. Raises WorkerHangsError if the current frame does not finish."""
        self.segmentation.close()
        self.destroy_node()

    @property
    def builds(self) -> bool:
        """Whether a thread loads a model or builds an engine. Only the end of the process can stop it."""
        return self.segmentation.builds or (self._configurer is not None and self._configurer.is_alive())

    def _configure(self) -> None:
        """Load and build in a thread, so that a signal ends the callback while a library takes minutes."""
        failures: list[Exception] = []

        def work() -> None:
            try:
                self.segmentation.load()
                if self.segmentation.settings.image_size:
                    self.segmentation.build()
            except Exception as error:
                failures.append(error)

        self._configurer = Thread(target=work, name='configure', daemon=True)
        self._configurer.start()
        while self._configurer.is_alive():
            if self._signals:
                raise ConfigureStoppedError('a signal ends the node before it is configured')
            self._configurer.join(SIGNAL_PERIOD)
        if failures:
            raise failures[0]

    def _activate(self) -> None:
        self.segmentation.open_topics()
        if not self._overrides_are_checked:  # only now does every topic have its parameters
            warn_of_unknown(self, overrides=True)
            self._overrides_are_checked = True
        self.segmentation.start()

    def _end(self) -> None:
        self.segmentation.stop()
        self.segmentation.unload()

    def _raise_failure(self) -> None:
        failure = self.segmentation.look_for_failure()
        if failure is not None:
            raise failure

    def _transition(self, state: str, work: Callable[[], None]) -> TransitionCallbackReturn:
        """Run the work of a transition. An exception becomes the reason in log and diagnostics.

        Args:
            state: State after the transition, for the diagnostics.
            work: Work of the transition.
        """
        try:
            work()
        except Exception as error:  # rclpy would also return ERROR, but log nothing
            self.segmentation.failure = error
            self.get_logger().error(' '.join(str(error).split()) or type(error).__name__)
            return TransitionCallbackReturn.ERROR
        self.segmentation.failure = None
        self.segmentation.state = state
        return TransitionCallbackReturn.SUCCESS

    def _watch(self) -> None:
        """Leave the active state when the backend is lost."""
        if not self.segmentation.state and self.segmentation.look_for_failure() is not None:
            self.trigger_deactivate()

    def _refuse_impossible_transitions(self) -> None:
        """Answer a request for an impossible transition with ``success: false``; older rclpy ends the process."""
        change_state = self._service_change_state.callback

        def answer(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except Exception as error:  # RCLError, whose class is private in rclpy
                self.get_logger().error(f'transition is refused: {" ".join(str(error).split())}')
                response.success = False
                return response

        self._service_change_state.callback = answer
