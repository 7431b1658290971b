"""Tables of the results of evaluation suites, one row per run."""

from mixskd.reporting.evidence import Evidence
from mixskd.reporting.published.classification import FGSM, published_fgsm
from mixskd.reporting.tables.cells import Cell, Number, Table


def suite_tables(evidence: Evidence) -> dict[str, Table]:
    """The tables by suite, for suites with results that a figure does not show."""
    made: dict[str, Table] = {
        "fgsm": _attacks(evidence, "fgsm"),
        "pgd": _attacks(evidence, "pgd"),
        "calibration": [
            {
                "run": run.label, "ECE (%)": Number(r["whole"]["ece"], 2),
                "adaptive ECE (%)": Number(r["whole"]["adaptive_ece"], 2), "Brier": Number(r["whole"]["brier"], 4),
                "NLL": Number(r["whole"]["nll"], 4), "temperature": Number(r["temperature"], 3),
                "fitted on": str(r["fitted_on"]), "ECE before (%)": Number(r["before"]["ece"], 2),
                "ECE after (%)": Number(r["after"]["ece"], 2),
            }
            for run, r in evidence.with_suite("calibration")
        ],
        "corruption": _corruption(evidence),
        "features": [
            {
                "run": run.label, "fitted on": str(r["trained_on"]), "training images": Number(r["train_images"]),
                "test images": Number(r["images"]), "features": Number(r["feature_dim"]),
                "k-NN top-1 (%)": Number(r["knn_top1"], 2), "linear probe top-1 (%)": Number(r["linear_top1"], 2),
                "converged": "yes" if r["converged"] else "no",
            }
            for run, r in evidence.with_suite("features")
        ],
        "ood": [
            {
                "run": run.label, "other data": str(r["other_data"]), "own images": Number(r["images"]),
                "other images": Number(r["other_images"]),
                **{
                    f"{title} {measure} (%)": Number(r[score][key], 2)
                    for score, title in (("max_softmax", "softmax"), ("energy", "energy"))
                    for key, measure in (("auroc", "AUROC"), ("fpr95", "FPR95"))
                },
            }
            for run, r in evidence.with_suite("ood")
        ],
    }  # fmt: skip
    return {name: table for name, table in made.items() if table}


def _attacks(evidence: Evidence, suite: str) -> Table:
    rows: Table = []
    for run, result in evidence.with_suite(suite):
        paper = published_fgsm(run.result.experiment) if suite == "fgsm" else {}
        attacked: dict[str, Cell] = {}
        for attack in result["attacks"]:
            epsilon = attack["epsilon"]
            attacked[f"{epsilon:g} (%)"] = Number(attack["top1"], 2)
            if epsilon in paper:
                attacked[f"{FGSM} at {epsilon:g} (%)"] = Number(paper[epsilon], 1)
        rows.append({
            "run": run.label, "suite": suite, "space": str(result["protocol"].get("space", "-")),
            "images": Number(result["images"]), "clean top-1 (%)": Number(result["clean_top1"], 2), **attacked,
        })  # fmt: skip
    return _filled(rows)


def _corruption(evidence: Evidence) -> Table:
    rows: Table = []
    for run, result in evidence.with_suite("corruption"):
        each = {name.replace("_", " "): Number(c["error"], 1) for name, c in result["corruptions"].items()}
        rows.append({
            "run": run.label, "images": Number(result["images"]), "clean error (%)": Number(result["clean_error"], 2),
            "mean error (%)": Number(result["mean_corruption_error"], 2),
            **({"mCE (%)": Number(result["mce"], 2)} if "mce" in result else {}), **each,
        })  # fmt: skip
    return _filled(rows)


def _filled(rows: Table) -> Table:
    """All rows with the columns of any, in the order in which they first come."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]
