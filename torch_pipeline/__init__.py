"""The PyTorch side: Lightning and kfp. Every file here has its twin.

==================  =====================================  ======================================
file and name       here                                   its twin in ``tf_pipeline``
==================  =====================================  ======================================
data                ``DataLoader``, ``IterableDataset``    ``tf.data.Dataset``
transform           statistics as buffers of a module      TensorFlow Transform
model               ``nn.Module``                          Keras layers
optimizer           ``torch.optim``                        Keras's, their steps made PyTorch's
strategy            Lightning ``Strategy``                 ``tf.distribute.Strategy``
train               ``LightningModule`` and ``Trainer``    a loop over ``strategy.run``
anatomy             steps of a bare loop                   steps of one call, without dispatch
evaluate            batch by batch; in the DAG, exported   batch by batch; in the DAG, TFMA
export              ``torch.export`` program               SavedModel
pipeline            kfp components, typed artifacts        TFX components, ML Metadata
runners             ``kfp.local``, kfp compiler            ``LocalDagRunner``, Kubeflow V2
``RANK`` and peers  ``WORLD_SIZE``, ``MASTER_*``           ``TF_CONFIG``: one JSON
==================  =====================================  ======================================
"""
