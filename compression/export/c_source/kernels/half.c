/* The value of a finite number of IEEE 754's binary16. */
static float half(uint16_t bits)
{
    union { uint32_t bits; float value; } number;
    uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 0)
        number.value = (float)fraction * 5.9604644775390625e-8f;
    else
        number.bits = (exponent + 112) << 23 | fraction << 13;
    return bits >> 15 ? -number.value : number.value;
}
