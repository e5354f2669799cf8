"""The core of mnist37: the data, the model and its training; torch, numba and nothing above.

    mnist37.data      the 3s and 7s of MNIST, as tensors
    mnist37.model     init_params, linear1, sigmoid, mnist_loss, accuracy and the gradient step
    mnist37.training  the same step at full speed, and the order in which a run sees the images
    mnist37.examples  what images on a device can do; mnist37.host: on the CPU, .device: on CUDA
    mnist37.kernels   the arithmetic on the CPU; mnist37.cuda_kernels: on CUDA
    mnist37.shuffling the orders of a run; mnist37.losses: exact sums

Importing this package loads nothing, so that the client can read the images in it without torch.
"""
