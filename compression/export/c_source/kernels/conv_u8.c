/* Convolution of integers: sums in 32 bits, rounded to uint8_t. */
static void conv_u8(
    const uint8_t *x, uint8_t *y, const window *s, const int8_t *w, const int32_t *bias, const float *scale,
    int zero_x, int zero_y)
{
    int pixels = s->height * s->width, taps = s->kernel_height * s->kernel_width;
    int step = s->stride_width, reach = 3 * step + (s->kernel_width - 1) * s->dilation_width;
    for (int o = 0; o < s->outputs; o++) {
        const uint8_t *image = x + o / s->group_outputs * s->channels * pixels;
        const int8_t *filter = w + o * s->channels * taps;
        for (int row = 0; row < s->out_height; row++) {
            int top = row * s->stride_height - s->top;
            for (int column = 0; column < s->out_width;) {
                int left = column * step - s->left;
                /* Four neighbors whose windows are inside the row share the loads of weights. */
                int four = column + 4 <= s->out_width && left >= 0 && left + reach < s->width;
                int32_t sums[4] = {bias[o], bias[o], bias[o], bias[o]};
                for (int c = 0; c < s->channels; c++)
                    for (int i = 0; i < s->kernel_height; i++) {
                        int line = top + i * s->dilation_height;
                        if (line < 0 || line >= s->height)
                            continue;
                        line = c * pixels + line * s->width;
                        const int8_t *weights = filter + c * taps + i * s->kernel_width;
                        for (int j = 0; j < s->kernel_width; j++) {
                            int at = left + j * s->dilation_width, weight = weights[j];
                            if (four) {
                                const uint8_t *p = image + line + at;
                                sums[0] += weight * (p[0] - zero_x);
                                sums[1] += weight * (p[step] - zero_x);
                                sums[2] += weight * (p[2 * step] - zero_x);
                                sums[3] += weight * (p[3 * step] - zero_x);
                            } else if (at >= 0 && at < s->width)
                                sums[0] += weight * (image[line + at] - zero_x);
                        }
                    }
                for (int k = 0; k < (four ? 4 : 1); k++, column++)
                    *y++ = rounded((float)sums[k] * scale[o], zero_y);
            }
        }
    }
}
