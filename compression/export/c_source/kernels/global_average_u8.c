/* Mean of each channel of `pixels` numbers, rounded; y may be x. */
static void global_average_u8(
    const uint8_t *x, uint8_t *y, int channels, int pixels, const float *scale, int zero_x, int zero_y)
{
    for (int c = 0; c < channels; c++) {
        int32_t sum = -zero_x * pixels;
        for (int i = 0; i < pixels; i++)
            sum += *x++;
        *y++ = rounded((float)sum * *scale, zero_y);
    }
}
