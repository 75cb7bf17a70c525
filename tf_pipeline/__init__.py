"""The TensorFlow side: TFX and ``tf.distribute``. Every file here has its twin.

==================  =====================================  ======================================
file and name       here                                   its twin in ``torch_pipeline``
==================  =====================================  ======================================
data                ``tf.data.Dataset``                    ``DataLoader``, ``IterableDataset``
transform           TensorFlow Transform                   statistics as buffers of a module
model               Keras layers, channels last            ``nn.Module``, channels first
strategy            ``tf.distribute.Strategy``             Lightning ``Strategy``
train               a loop over ``strategy.run``           ``LightningModule`` and ``Trainer``
evaluate            Keras metrics; TFMA in the DAG         torchmetrics, in the DAG too
export              SavedModel                             ``torch.export`` program
pipeline            TFX components, ML Metadata            kfp components, typed artifacts
runners             ``LocalDagRunner``, Kubeflow V2        ``kfp.local``, kfp compiler
``TF_CONFIG``       cluster and task in one JSON           ``RANK``, ``WORLD_SIZE``, ``MASTER_*``
==================  =====================================  ======================================
"""
