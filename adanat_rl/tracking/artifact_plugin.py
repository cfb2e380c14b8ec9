"""MLflow's plugin for `adanat-rl-file:` addresses; MLflow imports it by the entry point of the package."""

from __future__ import annotations

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from adanat_rl.tracking.store_artifacts import place_of


class StoreArtifactRepository(LocalArtifactRepository):
    """A folder beside the database of the store that asks for it."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(place_of(artifact_uri, tracking_uri).as_uri(), tracking_uri, registry_uri)
