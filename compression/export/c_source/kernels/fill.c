static void fill@SUFFIX@(@TYPE@ *y, int count, @TYPE@ value)
{
    for (int i = 0; i < count; i++)
        y[i] = value;
}
