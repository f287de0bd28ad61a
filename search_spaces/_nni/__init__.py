"""Adapter for NNI model spaces.

NNI is imported in three places only, see the import contract in `setup.cfg`:

- This folder: `nni.nas.nn.pytorch` (`ModelSpace`, `LayerChoice`, `Repeat`, `Cell`, `MutableConv2d`,
  `MutableBatchNorm2d`, and `MutableModule` from its module `base`), `nni.mutable` (`Categorical`,
  `CategoricalMultiple`, `Numerical`, `Constraint`, `MutableExpression`, `MutableSymbol`) and
  `nni.nas.space.model_context`. Other packages get `ModelSpace` and `import_nni` from here.
- The spaces in `slimsearch.search_spaces`: `nni.choice` and layers of `nni.nas.nn.pytorch`; spaces of NNI's hub also
  use `nni.nas.hub.pytorch`, `nni.nas.space.current_model` and `nni.mutable.SampleValidationError`.
- NNI's strategies, `slimsearch.strategies.nni_*` and `slimsearch.strategies._nni`: `nni.nas.strategy`,
  `nni.nas.execution`, `nni.nas.space`, `nni.nas.evaluator.pytorch`, `nni.mutable`, `nni.NoMoreTrialError`, and for
  supernets private modules of `nni.nas.oneshot.pytorch`.

NNI's compression is used in `experiments/` only, for comparisons.
"""
