"""The TensorFlow side: TFX and ``tf.distribute``. Every file here has its twin.

==================  =====================================  ======================================
file and name       here                                   its twin in ``torch_pipeline``
==================  =====================================  ======================================
data                ``tf.data.Dataset``                    ``DataLoader``, ``IterableDataset``
transform           TensorFlow Transform                   statistics as buffers of a module
model               Keras layers                           ``nn.Module``
optimizer           Keras's, their steps made PyTorch's    ``torch.optim``
strategy            ``tf.distribute.Strategy``             Lightning ``Strategy``
train               a loop over ``strategy.run``           ``LightningModule`` and ``Trainer``
anatomy             steps of one call, without dispatch    steps of a bare loop
evaluate            batch by batch; in the DAG, TFMA       batch by batch; in the DAG, exported
export              SavedModel                             ``torch.export`` program
pipeline            TFX components, ML Metadata            kfp components, typed artifacts
runners             ``LocalDagRunner``, Kubeflow V2        ``kfp.local``, kfp compiler
``TF_CONFIG``       cluster and task in one JSON           ``RANK``, ``WORLD_SIZE``, ``MASTER_*``
==================  =====================================  ======================================
"""
