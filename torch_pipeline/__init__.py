"""The PyTorch side: Lightning and kfp. Every file here has its twin.

==================  =====================================  ======================================
file and name       here                                   its twin in ``tf_pipeline``
==================  =====================================  ======================================
data                ``DataLoader``, ``IterableDataset``    ``tf.data.Dataset``
transform           statistics as buffers of a module      TensorFlow Transform
model               ``nn.Module``, channels first          Keras layers, channels last
strategy            Lightning ``Strategy``                 ``tf.distribute.Strategy``
train               ``LightningModule`` and ``Trainer``    a loop over ``strategy.run``
evaluate            torchmetrics, in the DAG too           Keras metrics; TFMA in the DAG
export              ``torch.export`` program               SavedModel
pipeline            kfp components, typed artifacts        TFX components, ML Metadata
runners             ``kfp.local``, kfp compiler            ``LocalDagRunner``, Kubeflow V2
``RANK`` and peers  ``WORLD_SIZE``, ``MASTER_*``           ``TF_CONFIG``: one JSON
==================  =====================================  ======================================
"""
