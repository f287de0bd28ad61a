/* How a convolution or pooling moves over an input of one or two dimensions. */
typedef struct {
    uint16_t channels, group_outputs, outputs; /* input channels of a group, its output channels, all output channels */
    uint16_t height, width, out_height, out_width;
    uint16_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width, top, left;
} window;
