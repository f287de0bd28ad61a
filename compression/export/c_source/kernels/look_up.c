/* An elementwise function as a table; y may be x. */
static void look_up(const uint8_t *x, uint8_t *y, int count, const uint8_t *table)
{
    for (int i = 0; i < count; i++)
        y[i] = table[x[i]];
}
