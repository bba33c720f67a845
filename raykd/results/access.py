"""The tables of one run or of many as attributes."""

from __future__ import annotations

import pandas as pd


class TableAccess:
    """The tables as attributes; each is a frame of its own, in the order in which rows were written."""

    def table(self, name: str) -> pd.DataFrame:
        """The table of this name: repeated texts as categoricals, integers and truths nullable, missing floats NaN.

        Raises:
            RaykdError: there is no such table, or a file of it cannot be read.
        """
        raise NotImplementedError

    def scores(self) -> pd.DataFrame:
        """The scores of the models that sites deploy in the end: test cases, last round, one row per run, patient and class.

        Returns:
            Columns run_id, scenario, method, seed, client_id, client_name, group, patient_id, model, class_name, dsc, nsd, hd95_mm
            and assd_mm, each a mean over the patient's cases. The score of a federation is the mean over sites of the mean over
            patients of the mean over classes (classes are averaged within a case first, where a patient's cases hold unlike ones).
        """
        raise NotImplementedError

    @property
    def clients(self) -> pd.DataFrame:
        """One row a client of the federation."""
        return self.table("clients")

    @property
    def rounds(self) -> pd.DataFrame:
        """One row a round."""
        return self.table("rounds")

    @property
    def training(self) -> pd.DataFrame:
        """One row a client's local update."""
        return self.table("training")

    @property
    def cases(self) -> pd.DataFrame:
        """One row a case, class, model and evaluation."""
        return self.table("cases")

    @property
    def calibration(self) -> pd.DataFrame:
        """One row a case, model and bin of confidence."""
        return self.table("calibration")

    @property
    def transfers(self) -> pd.DataFrame:
        """One row a payload crossing a link."""
        return self.table("transfers")

    @property
    def crossings(self) -> pd.DataFrame:
        """One row a tensor that crossed between server and clients in a round."""
        return self.table("crossings")

    @property
    def events(self) -> pd.DataFrame:
        """One row a thing worth telling."""
        return self.table("events")

    @property
    def privacy(self) -> pd.DataFrame:
        """One row a client, mechanism and round: the epsilon spent so far."""
        return self.table("privacy")

    @property
    def leaks(self) -> pd.DataFrame:
        """One row an attack on a client's upload."""
        return self.table("leaks")

    @property
    def previews(self) -> pd.DataFrame:
        """One row a layer of a slice of a test case."""
        return self.table("previews")

    @property
    def records(self) -> pd.DataFrame:
        """One row a value drawn for a case."""
        return self.table("records")

    @property
    def teachers(self) -> pd.DataFrame:
        """One row a point of a training curve on the repository."""
        return self.table("teachers")
