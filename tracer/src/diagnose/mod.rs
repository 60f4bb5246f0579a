//! Diagnosis: from journeys, topology and observation to verdicts and the report. Pure.
