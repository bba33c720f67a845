"""The columns of every table that a run writes: type, unit, meaning, and whether two runs of one scenario agree in it."""

from __future__ import annotations

import pyarrow as pa

from raykd.results.columns import BYTES, INTEGER, NUMBER, TEXT, TRUTH, Column, TableSchema


def _key(name: str, meaning: str, type: pa.DataType = INTEGER) -> Column:
    return Column(name, type, meaning, is_required=True)


def _seconds(name: str, meaning: str) -> Column:
    return Column(name, NUMBER, meaning, "s", is_deterministic=False)


COMMON = (
    _key("run_id", "the run, unique among all runs", TEXT),
    _key("scenario", "the scenario's name", TEXT),
    _key("method", "the method's name", TEXT),
    _key("seed", "the scenario's seed"),
)
ROUND = _key("round", "0 is the first; -1 is before it")
CLIENT = _key("client_id", "0, 1, ... in the order of the scenario; -1 is the repository, -2 all clients pooled")

CLIENTS = (
    _key("client_id", "0, 1, ... in the order of the scenario"),
    _key("group", "the group of sites it belongs to", TEXT),
    Column("client_name", TEXT, "its name in reports"),
    Column("source", TEXT, "where its cases come from: the source and, where it makes them, of what"),
    Column("split_unit", TEXT, "what lies wholly on one side of a split, where the source says so: patient or case"),
    *(Column(f"spacing_{axis}_mm", NUMBER, f"median voxel edge along {axis.upper()}", "mm") for axis in "ijk"),
    Column("slice_gap_mm", NUMBER, "part of the largest spacing that no slice covers", "mm"),
    Column("scanner", TEXT, "its acquisition in a few words", is_repeated=False),
    Column("label_classes", TEXT, "the classes its annotators outline, separated by commas"),
    Column("label_slices", NUMBER, "share of the slices of a labelled case that are outlined"),
    Column("label_noise", TEXT, "how its annotators err, in a few words; null: not at all", is_repeated=False),
    Column("is_held_out", TRUTH, "whether it takes no part in training and is only tested on"),
    Column("num_labelled", INTEGER, "training cases with a label map"),
    Column("num_unlabelled", INTEGER, "training cases without one"),
    Column("num_validation", INTEGER, "cases held out for choices made in training"),
    Column("num_test", INTEGER, "cases held out for judging"),
    Column("num_previews", INTEGER, "first test cases whose slices are kept; those of the worst are kept too"),
    Column("network", TEXT, "its student's network"),
    Column("num_params", INTEGER, "values in its student"),
    Column("link_up_mbps", NUMBER, "client to server", "Mbit/s"),
    Column("link_down_mbps", NUMBER, "server to client", "Mbit/s"),
    Column("link_latency_ms", NUMBER, "one way", "ms"),
    Column("link_jitter_ms", NUMBER, "mean of what a message waits beyond the latency", "ms"),
    Column("link_loss", NUMBER, "share of packets that are lost and sent again"),
    Column("compute_factor", NUMBER, "speed of its machine relative to the simulation's"),
    Column("memory_gib", NUMBER, "memory of its machine; null: not stated", "GiB"),
    Column("joins", INTEGER, "its first round"),
    Column("leaves", INTEGER, "the first round without it; null: it stays"),
    Column("drawn", TEXT, "what the scenario drew for it, as JSON: key path to value; null: nothing", is_repeated=False),
)
ROUNDS = (
    ROUND,
    Column("num_selected", INTEGER, "clients drawn for the round"),
    Column("num_completed", INTEGER, "clients whose upload was aggregated"),
    Column("num_dropped", INTEGER, "clients that the scenario let drop out, and stragglers of a deadline"),
    _seconds("wall_s", "duration of the round in the simulation"),
    _seconds(
        "simulated_s",
        "duration it would have had at the clients' links and machines; holds measured compute unless clock.step_s",
    ),
    _seconds("engine_s", "wall_s spent in neither training nor the server: scheduling and moving data"),
    _seconds("server_s", "broadcast and aggregation"),
)
TRAINING = (
    ROUND,
    CLIENT,
    Column("num_steps", INTEGER, "optimiser steps"),
    Column("num_steps_taken", INTEGER, "those of all that was trained, a teacher's among them: what the clock counts"),
    Column("flops", INTEGER, "operations of num_steps_taken: convolutions, matrix products, forward and backward; null: unknown"),
    Column("staleness", INTEGER, "models that the server made between its download and its upload; null: rounds in step"),
    Column("loss_total", NUMBER, "mean over the steps"),
    Column("loss_supervised", NUMBER, "of labelled voxels, mean over the steps"),
    Column("loss_response", NUMBER, "of response distillation, mean over the steps"),
    Column("loss_feature", NUMBER, "of feature distillation, mean over the steps"),
    _seconds("train_s", "duration of the local update"),
    _seconds("coding_s", "duration of reading what it was sent in the round and of writing its upload, codecs among it"),
    _seconds("simulated_s", "duration it would have had on the client's machine; holds measured compute unless clock.step_s"),
    Column("peak_rss_mb", NUMBER, "largest resident memory of the process", "MiB", is_deterministic=False),
)
CASES = (
    ROUND,
    CLIENT,
    _key("split", "validation or test", TEXT),
    _key("case_id", "unique within its client", TEXT),
    Column("patient_id", TEXT, "whose case it is, the unit of statistics; one patient keeps it in every run"),
    _key("model", "global, personal or teacher", TEXT),
    _key("class_index", "1, 2, ... in the order of the scenario's classes"),
    _key("class_name", "the class's name", TEXT),
    Column("dsc", NUMBER, "Dice similarity coefficient, 0 to 1; null: the reference is empty"),
    Column(
        "nsd",
        NUMBER,
        "share of both surfaces' area within the tolerance (normalised surface distance); null: not computed or empty reference",
    ),
    Column("nsd_tolerance_mm", NUMBER, "up to which surfaces count as one in nsd; null: no nsd, or of voxels, not of area", "mm"),
    Column("hd95_mm", NUMBER, "95th percentile of surface distance by area, the larger of both ways; null: as nsd", "mm"),
    Column("assd_mm", NUMBER, "surface distance averaged over the area of both surfaces; null: as nsd", "mm"),
    Column("volume_ref_mm3", NUMBER, "volume of the reference", "mm³"),
    Column("volume_pred_mm3", NUMBER, "volume of the prediction; where the reference is empty, false-positive volume", "mm³"),
    Column("reference", TEXT, "outlined, empty (looked for, no voxel) or absent (known not to be there); null: older runs"),
    Column("volume_native_mm3", NUMBER, "volume of the source's finer reference on the site's field of view; null: none", "mm³"),
    Column("dsc_native", NUMBER, "DSC on the source's finer grid; null: not computed (evaluation.native_grid)"),
    Column("nsd_native", NUMBER, "NSD there; null: not computed"),
    Column("hd95_native_mm", NUMBER, "HD95 there; null: not computed", "mm"),
    Column("volume_pred_native_mm3", NUMBER, "volume of the prediction there; null: not computed", "mm³"),
    Column("is_ref_empty", TRUTH, "the reference has no voxel of the class"),
    Column("is_pred_empty", TRUTH, "the prediction has no voxel of the class"),
)
CALIBRATION = (
    ROUND,
    CLIENT,
    _key("split", "validation or test", TEXT),
    _key("case_id", "unique within its client", TEXT),
    Column("patient_id", TEXT, "whose case it is"),
    _key("model", "global, personal or teacher", TEXT),
    _key("bin_index", "0 to 14: voxels whose most probable class has a probability above index/15, up to (index + 1)/15"),
    _key("num_voxels", "voxels of the bin, of those at most 5 mm from a structure of the reference"),
    Column("sum_confidence", NUMBER, "their probabilities of the most probable class, added up", is_required=True),
    _key("num_correct", "those whose most probable class is that of the reference"),
    Column("sum_brier", NUMBER, "squared distances between their probabilities and the true class (0 to 2), added up"),
    Column("sum_nll", NUMBER, "minus the logarithms of their true class's probability, added up"),
)
TRANSFERS = (
    ROUND,
    CLIENT,
    _key("direction", "down (to the client) or up", TEXT),
    _key("kind", "what travelled: params, logits, features, prototypes, control, teacher", TEXT),
    Column("codec", TEXT, "how the values were written"),
    Column("num_values", INTEGER, "values in the payload"),
    _key("num_bytes", "size as serialised"),
    Column("simulated_s", NUMBER, "num_bytes over the link's rate, its latency and its jitter", "s"),
)
CROSSINGS = (
    ROUND,
    _key("direction", "down (to the clients) or up", TEXT),
    _key("kind", "what travelled, as in transfers", TEXT),
    _key("name", "of the tensor; of a message that codecs wrote, of its parts; header: the bytes that are no tensor", TEXT),
    Column("dtype", TEXT, "type of its numbers, as safetensors names it"),
    Column("shape", TEXT, "its axes, as 8x4x3x3x3"),
    _key("num_bytes", "size in one message"),
    Column("num_messages", INTEGER, "messages that held it"),
)
EVENTS = (
    ROUND,
    CLIENT,
    _key("kind", "dropout (drawn), straggler, joined, left, idle, excluded (not finite), stopped, worker_lost, weak_start", TEXT),
    Column("detail", TEXT, "a sentence", is_repeated=False),
)
PRIVACY = (
    ROUND,
    CLIENT,
    _key("mechanism", "where noise was added: upload (each), sum (of a round's uploads), records (gradients of local steps)", TEXT),
    _key("unit", "what is hidden: client, whether it learnt anything; patient, whether its cases were there", TEXT),
    Column("clip_norm", NUMBER, "largest Euclidean norm of what one unit contributes"),
    Column("noise_multiplier", NUMBER, "standard deviation of the noise in units of clip_norm"),
    Column("sample_rate", NUMBER, "probability of a unit to take part in a release; 1: no amplification is claimed"),
    Column("num_releases", INTEGER, "so far: uploads, or steps"),
    Column("neighbours", TEXT, "runs that epsilon bounds the difference of: add_or_remove or replace_one; null: the former"),
    Column("epsilon", NUMBER, "spent so far, by the accountant, for these neighbours; null: unbounded, no noise"),
    Column("epsilon_add_or_remove", NUMBER, "the same where one unit is there or not; null: unbounded"),
    Column("epsilon_replace_one", NUMBER, "the same where one unit is another; null: unbounded"),
    Column("delta", NUMBER, "with which epsilon holds"),
    Column("update_norm", NUMBER, "norm before clipping, for the experimenter: not protected"),
)
LEAKS = (
    ROUND,
    CLIENT,
    _key("attack", "gradient_inversion, prototype_inversion, membership_loss or membership_calibrated", TEXT),
    Column("knows", TEXT, "what the attacker holds beside the upload"),
    _key(
        "metric",
        "of images with the training patch most like them: correlation, ssim, psnr_db; of members: auc, tpr_at_fpr_1pct, _10pct",
        TEXT,
    ),
    _key("value", "what the attack reached", NUMBER),
    Column("low", NUMBER, "lower end of the 95% interval over cases; null: too few of them"),
    Column("high", NUMBER, "upper end"),
    Column("blind", NUMBER, "what is reached without the upload: by the mean of held-out patches, or by chance"),
    Column("unseen", NUMBER, "the same image with as many patches of held-out cases"),
    Column("num_members", INTEGER, "training patches, or training cases"),
    Column("num_others", INTEGER, "held-out patches, or held-out cases"),
    Column("is_leaking", TRUTH, "value is clearly above blind and unseen, or low above chance; null: too few cases"),
)
PREVIEWS = (
    ROUND,
    CLIENT,
    _key("case_id", "a test case, or one that the repository holds out", TEXT),
    _key("axis", "the axis that the slice is perpendicular to: 0, 1, 2 of I, J, K"),
    _key("slice_index", "the voxel index along that axis of the site's grid"),
    Column("slice_mm", NUMBER, "distance between slices on the layer's grid", "mm"),
    Column("row_mm", NUMBER, "distance between rows as displayed", "mm", is_required=True),
    Column("col_mm", NUMBER, "distance between columns as displayed", "mm", is_required=True),
    _key("rows", "rows as displayed"),
    _key("cols", "columns as displayed"),
    _key("layer", "image, reference, a model (global, personal, teacher), or source: same plane and extent before any shift", TEXT),
    _key("pixels", "uint8, rows * cols of them, top row first: intensity or class index", BYTES),
)
RECORDS = (
    CLIENT,
    _key("split", "labelled, unlabelled, validation or test", TEXT),
    _key("case_id", "unique within its client", TEXT),
    Column("patient_id", TEXT, "whose case it is"),
    _key("name", "what was drawn, after whoever drew it: phantom.size, scanner.gamma, ...", TEXT),
    Column("value", NUMBER, "in the unit that the name ends with; null: words"),
    Column("words", TEXT, "null: a number", is_repeated=False),
)
TEACHERS = (
    Column("role", TEXT, "teacher, or student where a method starts from one trained on the repository"),
    _key("step", "optimiser step of the training on the repository"),
    Column("loss", NUMBER, "of that step, or mean since the row before"),
    _seconds("train_s", "since the training began"),
)

TABLES: dict[str, TableSchema] = {
    schema.name: schema
    for schema in (
        TableSchema("clients", "a client of the federation", (*COMMON, *CLIENTS)),
        TableSchema("rounds", "a round", (*COMMON, *ROUNDS)),
        TableSchema("training", "a client's local update", (*COMMON, *TRAINING), ("loss_", "share_", "weight_", "trust_")),
        TableSchema("cases", "a case, class, model and evaluation", (*COMMON, *CASES)),
        TableSchema("calibration", "a case, model and bin of confidence that holds a voxel", (*COMMON, *CALIBRATION)),
        TableSchema("transfers", "a payload crossing a link", (*COMMON, *TRANSFERS)),
        TableSchema("crossings", "a tensor that crossed the boundary between server and clients in a round", (*COMMON, *CROSSINGS)),
        TableSchema("events", "something worth telling", (*COMMON, *EVENTS)),
        TableSchema("privacy", "what a client's privacy has cost by a round", (*COMMON, *PRIVACY)),
        TableSchema("leaks", "an attack on a client's upload, made afterwards", (*COMMON, *LEAKS), is_of_run=False),
        TableSchema("previews", "a layer of a slice of a test case", (*COMMON, *PREVIEWS)),
        TableSchema("records", "a value drawn for a case, before the first round", (*COMMON, *RECORDS)),
        TableSchema("teachers", "a point of a training curve on the repository", (*COMMON, *TEACHERS)),
    )
}


def measured_columns(table: str) -> tuple[str, ...]:
    """The columns of a table in which two runs of one scenario and seed may differ, `run_id` aside."""
    return tuple(column.name for column in TABLES[table].columns if not column.is_deterministic)
