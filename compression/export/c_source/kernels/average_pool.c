/* Mean of each window, with the padding's zeros if `padded`; y may be x if there is no padding. */
static void average_pool(const float *x, float *y, const window *s, int padded)
{
    for (int c = 0; c < s->outputs; c++, x += s->height * s->width)
        for (int row = 0; row < s->out_height; row++)
            for (int column = 0; column < s->out_width; column++) {
                int count = 0;
                float sum = 0;
                for (int i = 0; i < s->kernel_height; i++)
                    for (int j = 0; j < s->kernel_width; j++) {
                        int line = row * s->stride_height - s->top + i * s->dilation_height;
                        int at = column * s->stride_width - s->left + j * s->dilation_width;
                        if (line >= 0 && line < s->height && at >= 0 && at < s->width) {
                            sum += x[line * s->width + at];
                            count++;
                        }
                    }
                *y++ = sum / (float)(padded ? s->kernel_height * s->kernel_width : count);
            }
}
