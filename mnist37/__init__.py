"""The core of mnist37: the data, the model and its training. It depends only on torch and numba.

    mnist37.data      the 3s and 7s of MNIST, as bytes and as tensors
    mnist37.model     init_params, linear1, sigmoid, mnist_loss, accuracy and the gradient step
    mnist37.checks    what mnist37.model refuses
    mnist37.training  the same step at full speed, and the order in which a run reads the images
    mnist37.examples  the interface of a device and of the images on it
    mnist37.host      that interface on the CPU; mnist37.cuda: on CUDA
    mnist37.kernels   the arithmetic on the CPU; mnist37.cuda_kernels: on CUDA
    mnist37.shuffling the orders of a run; mnist37.losses: exact sums
    mnist37.draw      torch's normal random numbers, without torch

Importing this package loads no module of it, so a client can read the images in it without torch.
"""
