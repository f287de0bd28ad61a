/* An elementwise function as a table for each channel, or one for all; y may be x. */
static void look_up(const uint8_t *x, uint8_t *y, int channels, int count, const uint8_t *table)
{
    for (int c = 0; c < channels; c++, table += 256)
        for (int i = 0; i < count; i++)
            *y++ = table[*x++];
}
