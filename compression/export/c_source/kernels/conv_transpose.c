/* Transposed convolution of floats: each output gathers the inputs whose windows cover it. Sums over channels are
   rounded as in ONNX Runtime, where the result is often rounded to an integer. */
static void conv_transpose@SUFFIX@(
    const float *x, float *y, const window *s, @PARAMETERS@, const float *bias)
{
    int pixels = s->height * s->width, taps = s->kernel_height * s->kernel_width;
    for (int o = 0; o < s->outputs; o++) {
        const float *image = x + o / s->group_outputs * s->channels * pixels;
        const @TYPE@ *weights = w + o * s->channels * taps;
        for (int row = 0; row < s->out_height; row++)
            for (int column = 0; column < s->out_width; column++) {
                float sum = 0;
                for (int i = 0; i < s->kernel_height; i++) {
                    int line = row + s->top - i * s->dilation_height;
                    if (line < 0 || line % s->stride_height || line / s->stride_height >= s->height)
                        continue;
                    line = line / s->stride_height * s->width;
                    for (int k = 0; k < s->kernel_width; k++) {
                        int at = column + s->left - k * s->dilation_width;
                        if (at < 0 || at % s->stride_width || at / s->stride_width >= s->width)
                            continue;
                        at = line + at / s->stride_width;
                        float product = 0;
                        for (int c = 0, j = i * s->kernel_width + k; c < s->channels; c++, j += taps)
                            product = fmaf(@VALUE@@SCALED@, image[c * pixels + at], product);
                        sum += product;
                    }
                }
                *y++ = sum + bias[o];
            }
    }
}
