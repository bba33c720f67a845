"""Federated semi-supervised segmentation by prototypes (FSSS). Wu et al., IEEE Transactions on Medical Imaging, 2023. https://github.com/zhangbaiming/FedSemiSeg

A site with unlabelled cases receives, beside the global model, the mean of the models of labelled sites, weighted by how alike
their prototypes are to its own. It learns from voxels on which both models agree, and draws features to the prototypes of labelled
sites. Its unlabelled cases count by the share of voxels agreed on. A site that has labels, too, is both a labelled and an
unlabelled one; one that has none and no guide yet follows the received model and counts for nothing. Patches stand for the source's
slices, so few that they need no clustering; prototypes are the last round's, without a memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, Method, MethodSettings, Upload
from raykd.methods._layout import feature_channels
from raykd.methods._unlabelled import supervised_term, views
from raykd.models._base import SegmentationNetwork
from raykd.numerics.adaptive_weights import prototype_similarity, softmax_weights
from raykd.numerics.local_sgd import Batch, Loss
from raykd.numerics.params import Payload, rename, select, weighted_mean
from raykd.numerics.prototype_bank import bank_contrastive_loss, mean_prototypes, patch_prototypes
from raykd.numerics.pseudo_labels import agreed_labels
from raykd.numerics.segmentation_losses import UNKNOWN, dice_ce_loss
from raykd.numerics.sent_knowledge import comparable_labels
from raykd.scenario.fields import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from raykd.scenario.registry import METHODS

LAYER, MEAN, COUNT, AGREEMENT = "decoder_1", "prototypes/mean", "prototypes/count", "control/agreement"


@METHODS.register("fed_semi_seg")
class FedSemiSeg(Method):
    """Labelled sites guide unlabelled ones that look like them, by model and by prototypes."""

    kinds = ("params", "prototypes", "control", "teacher")

    class Settings(MethodSettings):
        name: Literal["fed_semi_seg"]
        aggregation: Literal["consistency", "uniform"] = "consistency"
        """Weights of the average: cases, of which unlabelled ones count by the share of voxels agreed upon; or all alike."""
        num_unlabelled: NonNegativeInt = 2
        """Unlabelled patches in every step; 0: labels only."""
        pseudo_weight: NonNegativeFloat = 1.0
        """Of the loss on voxels agreed upon."""
        contrast_weight: NonNegativeFloat = 1.0
        """Of the contrast with the prototypes of labelled sites."""
        temperature: PositiveFloat = 0.1
        """That divides the cosines of the contrast."""
        num_prototypes: PositiveInt = 6
        """Patches of which a site sends prototypes, each with one for every class that it holds."""

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        params, guiding = select(download, "params"), rename(download, "teacher", "params")
        guide = context.network(guiding) if guiding else None
        is_learning = context.num_unlabelled and (guide is not None or not context.num_labelled)
        num_unlabelled = self.settings.num_unlabelled if is_learning else 0
        fitted, result = context.fit(params, self._loss(context, download, guide), num_unlabelled=num_unlabelled)
        if context.is_personal:
            return LocalUpdate(state, fitted, result)
        own = context.network(fitted)
        measured = self._prototypes(context, own, guide) | self._agreement(context, own, guide)
        return LocalUpdate(state, fitted | measured, result)

    def download(self, server: Payload, client_id: int) -> Payload:
        """For a site known to have unlabelled cases, once there are models of labelled sites."""
        sites = _sites(server)
        labelled = [site for site, cases in sites.items() if int(cases[0])]
        if client_id not in sites or not int(sites[client_id][1]) or not labelled or not self.settings.num_unlabelled:
            return {}
        means = {site: mean_prototypes(server[f"{MEAN}/{site}"], server[f"{COUNT}/{site}"]) for site in {client_id, *labelled}}
        own, number = means[client_id]
        similarity = [prototype_similarity(own, number > 0, means[site][0], means[site][1] > 0) for site in labelled]
        models = [rename(server, f"control/model/{site}", "teacher") for site in labelled]
        bank = {key: torch.cat([server[f"{key}/{site}"] for site in labelled]) for key in (MEAN, COUNT)}
        return weighted_mean(models, softmax_weights(similarity)) | bank

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        kept = {key: value for key, value in server.items() if not key.startswith("params/")}
        for upload in uploads:
            kept[f"control/cases/{upload.client_id}"] = torch.tensor([upload.num_labelled, upload.num_unlabelled])
            kept |= {f"{key}/{upload.client_id}": upload.payload[key] for key in (MEAN, COUNT)}
            if upload.num_labelled:
                kept |= rename(upload.payload, "params", f"control/model/{upload.client_id}")
        volumes = [u.num_labelled + float(u.payload[AGREEMENT]) * u.num_unlabelled for u in uploads]
        if self.settings.aggregation == "uniform" or not sum(volumes):
            volumes = [1.0] * len(uploads)
        return kept | weighted_mean((select(upload.payload, "params") for upload in uploads), volumes)

    def _loss(self, context: LocalContext, download: Payload, guide: SegmentationNetwork | None) -> Loss:
        received, rng = context.network(select(download, "params")), context.generator("fed-semi-seg-views")

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            seen, believed = views(batch, rng)
            logits, features = model.forward_with_features(seen, (LAYER,))
            terms = supervised_term(logits, batch, context.annotated)
            if not len(believed):
                return terms
            with torch.no_grad():
                said = received(believed)
                label = agreed_labels(said, said if guide is None else guide(believed))
            terms["pseudo"] = self.settings.pseudo_weight * dice_ce_loss(logits[batch.num_labelled :], label)
            if self.settings.contrast_weight and COUNT in download and bool((download[COUNT] > 0).any()):
                bank, count = (download[key].to(logits.device) for key in (MEAN, COUNT))
                feature = features[LAYER][batch.num_labelled :]
                contrast = bank_contrastive_loss(feature, label, bank, count, self.settings.temperature)
                terms["contrast"] = self.settings.contrast_weight * contrast
            return terms

        return loss

    def _prototypes(self, context: LocalContext, own: SegmentationNetwork, guide: SegmentationNetwork | None) -> Payload:
        """Of patches, by the site's labels, whose background is unknown where other classes hide in it, or by what both models
        agree on where it has none."""
        wanted, num_classes = self.settings.num_prototypes, context.num_classes
        means, counts = [torch.zeros((0, num_classes, feature_channels(self, LAYER)))], [torch.zeros((0, num_classes))]
        looks = context.patches((wanted + 1) // 2, num_labelled=2, num_unlabelled=0 if context.num_labelled else 2)
        for batch in looks:
            with torch.no_grad():
                logits, features = own.forward_with_features(batch.image_BCIJK, (LAYER,))
                other = logits if guide is None else guide(batch.image_BCIJK)
            own_label = comparable_labels(batch.label_BIJK, None, batch.outlined(context.annotated))
            label = own_label if batch.num_labelled else agreed_labels(logits, other)
            mean, count = patch_prototypes(features[LAYER], label, num_classes)
            means.append(mean.cpu())
            counts.append(count.cpu())
        return {MEAN: torch.cat(means)[:wanted], COUNT: torch.cat(counts)[:wanted]}

    def _agreement(self, context: LocalContext, own: SegmentationNetwork, guide: SegmentationNetwork | None) -> Payload:
        """Share of voxels of unlabelled patches to which both models give one class; 0 without a guide."""
        shares = [0.0]
        if guide is not None:
            looks = context.patches(self.settings.num_prototypes, num_labelled=0, num_unlabelled=2, purpose="agreement")
            with torch.no_grad():
                labels = [agreed_labels(own(batch.image_BCIJK), guide(batch.image_BCIJK)) for batch in looks]
            shares = [float((label != UNKNOWN).float().mean()) for label in labels] or shares
        return {AGREEMENT: torch.tensor([sum(shares) / len(shares)])}


def _sites(server: Payload) -> dict[int, Tensor]:
    """Labelled and unlabelled cases of every site that has answered so far."""
    found = {key.rpartition("/")[2]: value for key, value in server.items() if key.startswith("control/cases/")}
    return {int(site): found[site] for site in sorted(found, key=int)}
