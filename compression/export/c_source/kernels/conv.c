/* Convolution of floats, limited to [low, high]. */
static void conv@SUFFIX@(
    const float *x, float *y, const window *s, @PARAMETERS@, const float *bias, float low, float high)
{
    int pixels = s->height * s->width, taps = s->kernel_height * s->kernel_width;
    int step = s->stride_width, reach = 3 * step + (s->kernel_width - 1) * s->dilation_width;
    for (int o = 0; o < s->outputs; o++) {
        const float *image = x + o / s->group_outputs * s->channels * pixels;
        const @TYPE@ *filter = w + o * s->channels * taps;
        for (int row = 0; row < s->out_height; row++) {
            int top = row * s->stride_height - s->top;
            for (int column = 0; column < s->out_width;) {
                int left = column * step - s->left;
                /* Four neighbors whose windows are inside the row share the loads of weights. */
                int four = column + 4 <= s->out_width && left >= 0 && left + reach < s->width;
                float sums[4] = {0, 0, 0, 0};
                for (int c = 0; c < s->channels; c++)
                    for (int i = 0; i < s->kernel_height; i++) {
                        int line = top + i * s->dilation_height;
                        if (line < 0 || line >= s->height)
                            continue;
                        line = c * pixels + line * s->width;
                        const @TYPE@ *weights = filter + c * taps + i * s->kernel_width;
                        for (int j = 0; j < s->kernel_width; j++) {
                            int at = left + j * s->dilation_width;
                            if (four) {
                                const float *p = image + line + at;
                                float weight = @VALUE@;
                                sums[0] += weight * p[0];
                                sums[1] += weight * p[step];
                                sums[2] += weight * p[2 * step];
                                sums[3] += weight * p[3 * step];
                            } else if (at >= 0 && at < s->width)
                                sums[0] += @VALUE@ * image[line + at];
                        }
                    }
                for (int k = 0; k < (four ? 4 : 1); k++, column++) {
                    float sum = sums[k]@SCALED@ + bias[o];
                    *y++ = sum < low ? low : sum > high ? high : sum;
                }
            }
        }
    }
}
