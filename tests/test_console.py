"""What the command line says: one line for what a user can mend, a traceback for a fault of the program."""

import logging
import subprocess
import sys

import pytest
from ignite.engine import Engine, Events
from monai.handlers import StatsHandler
from workflow_fixtures import INFERENCE, ROOT

from bundle.system import DataWarning, console

WRAPPED = "Failed to evaluate ConfigExpression: \n\"$__local_refs['evaluator'].run()\""


def chain(*errors):
    """The first error, caused by the second, and so on; raised and caught."""
    for error, cause in zip(errors, errors[1:], strict=False):
        error.__cause__ = cause
    return errors[0]


def reported(error, capsys):
    console.report(type(error), error, error.__traceback__)
    return capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("no\n  such pair"), OSError("disk"), ModuleNotFoundError("no mlflow")])
def test_what_a_user_can_mend_is_one_line(error, capsys):
    assert reported(error, capsys) == f"error: {' '.join(str(error).split())}\n"


def test_wrapping_of_monai_is_left_out_but_not_what_explains_the_cause(capsys):
    error = chain(
        RuntimeError(WRAPPED),
        RuntimeError("applying transform <LoadPaird object>"),
        ValueError("a.nii.gz: cannot be read"),
        EOFError("end of stream"),
    )
    assert reported(error, capsys) == "error: a.nii.gz: cannot be read\n"


def test_error_of_a_worker_process_is_the_line_that_matters(capsys):
    text = """Caught RuntimeError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "x.py", line 1, in f
EOFError: end of stream

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "x.py", line 2, in g
ValueError: a.nii.gz: cannot be read

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
RuntimeError: applying transform <LoadPaird object>
"""
    assert reported(chain(RuntimeError(WRAPPED), RuntimeError(text)), capsys) == "error: a.nii.gz: cannot be read\n"


def test_fault_of_a_component_names_the_component(capsys):
    wrapping = (
        "Failed to instantiate component 'a.B' with keywords: steps\n set '_mode_=debug' to enter the debugging mode."
    )
    assert reported(chain(RuntimeError(wrapping), TypeError("'<' not supported")), capsys) == (
        "error: Failed to instantiate component 'a.B' with keywords: steps: TypeError: '<' not supported\n"
    )


def test_fault_of_an_expression_shows_it_as_it_was_written(capsys):
    wrapping = "Failed to evaluate ConfigExpression: \n\"$__local_refs['a::b'] // __local_refs['c']\""
    line = reported(chain(RuntimeError(wrapping), ZeroDivisionError("division by zero")), capsys)
    assert line == 'error: Failed to evaluate ConfigExpression: "$@a::b // @c": ZeroDivisionError: division by zero\n'


@pytest.mark.parametrize("error", [KeyError("fixed"), chain(RuntimeError(WRAPPED), AttributeError("no such"))])
def test_fault_of_the_program_has_a_traceback(error, capsys):
    assert f"{type(error).__name__}: " in reported(error, capsys)


def test_traceback_is_there_for_those_who_ask(capsys, monkeypatch):
    monkeypatch.setenv("BUNDLE_TRACEBACK", "1")
    assert reported(ValueError("no such pair"), capsys) == "ValueError: no such pair\n"


def test_interruption_says_how_to_go_on(capsys):
    """Other commands begin anew, or refuse what is there already, as ``dicom_series`` does."""
    said = "the same command continues a training, a registration or an experiment"
    assert said in reported(KeyboardInterrupt(), capsys)


def test_setup_looks_at_the_options_of_monai_bundle_only(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    arguments = ["run", "--config_file", str(INFERENCE), "--foo", "1"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/pytest/__main__.py", *arguments])
    console.setup()
    assert sys.excepthook is console.report
    monkeypatch.setattr(sys, "argv", ["/somewhere/monai/bundle/__main__.py", *arguments])
    with pytest.raises(ValueError, match="unknown option --foo"):
        console.setup()


def test_a_validation_is_one_line(capsys):
    logger = logging.getLogger("monai.handlers.StatsHandler")
    before, logger.handlers, logger.filters = (logger.handlers, logger.filters), [], []
    engine = Engine(lambda engine, batch: None)

    @engine.on(Events.ITERATION_COMPLETED)
    def measured(engine):
        engine.state.metrics = {"val_loss": 0.25}
        engine.state.key_metric_name, engine.state.best_metric, engine.state.best_metric_epoch = "val_loss", 0.25, 1

    try:
        console.show_validations()
        StatsHandler(iteration_log=False).attach(engine)
        engine.run([0])
    finally:
        logger.handlers, logger.filters = before
    assert capsys.readouterr().out == "Epoch[1] Metrics -- val_loss: 0.2500 \n"


def test_several_workflows_of_a_process_say_every_line_once():
    program = """if True:
        import logging
        from ignite.engine import Engine, Events
        from monai.handlers import StatsHandler
        from bundle.system import console
        for _ in range(3):
            assert console.quiet_unless(False) == {"logging_file": False}
        logging.getLogger("ignite.engine.engine").info("pair 1 of 1: good")
        logging.getLogger("ignite.engine.engine").info("Engine run starting")
        engine = Engine(lambda engine, batch: None)
        @engine.on(Events.ITERATION_COMPLETED)
        def measured(engine):
            engine.state.metrics = {"val_loss": 0.25}
        StatsHandler(iteration_log=False).attach(engine)
        engine.run([0])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "pair 1 of 1: good\nEpoch[1] Metrics -- val_loss: 0.2500 \n"


def test_warnings_about_the_data_are_one_line_and_others_stay_as_they_are():
    place = ("loading.py", 7)
    assert console.format_warning(DataWarning("a.nii: odd"), DataWarning, *place) == "warning: a.nii: odd\n"
    other = UserWarning("odd"), UserWarning, *place
    assert console.format_warning(*other) == console.python_format(*other)
