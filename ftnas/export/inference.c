/*@head*/
/*
 * Integer inference: no floating point, no allocation, C99.
 *
 * A value is an array of 32-bit codes, channel by channel, row by row. Sums are taken in 64 bits. Loops are written to
 * be read; a product would unroll them, and store a value in as few bits as it has.
 */
#include <stdint.h>

struct map {
    int channels, height, width;
};

#define MAP(channels, height, width) (struct map){channels, height, width}

/* Rows first, then columns. */
struct window {
    int kernel[2], stride[2], before[2], after[2], dilation[2];
};

/* (code * multiplier + addend) / 2^shift, cut off below low and above high; one of each, or one for each channel. */
struct rescale {
    const int32_t *multiplier;
    const int64_t *addend;
    const uint8_t *shift;
    int count;
    int32_t low, high;
};
/*@rescaled*/

/* Divides by 2^shift and rounds half to even: shifting a negative number is not the same everywhere. */
static int64_t divided(int64_t value, int shift)
{
    uint64_t magnitude = value < 0 ? (uint64_t)0 - (uint64_t)value : (uint64_t)value;
    uint64_t quotient = magnitude >> shift;
    uint64_t rest = magnitude - (quotient << shift);
    uint64_t half = shift > 0 ? (uint64_t)1 << (shift - 1) : 0;
    if (shift > 0 && (rest > half || (rest == half && (quotient & 1) == 1)))
        quotient++;
    return value < 0 ? -(int64_t)quotient : (int64_t)quotient;
}

static int32_t rescaled(int64_t value, struct rescale next, int channel)
{
    int at = next.count > 1 ? channel : 0;
    int64_t code = divided(value * next.multiplier[at] + next.addend[at], next.shift[at]);
    return code < next.low ? next.low : code > next.high ? next.high : (int32_t)code;
}

#define RESCALE(name, count, low, high) \
    (struct rescale){name##_multiplier, name##_addend, name##_shift, count, low, high}
/*@weight*/

/* Weights of up to 8 bits, or wider ones; the other is null. */
struct weight {
    const int8_t *narrow;
    const int16_t *wide;
};

static int32_t weight_at(struct weight weight, int index)
{
    return weight.narrow ? weight.narrow[index] : weight.wide[index];
}

#define NARROW(name) (struct weight){name##_weight, 0}
#define WIDE(name) (struct weight){0, name##_weight}
/*@convolve*/

/* Adds to a row of `count` sums what one weight gives: its input's row `x`, in which the first sum's is at `start`. */
static void add_row(int64_t *sums, int count, const int32_t *x, int width, int start, int stride, int32_t weight)
{
    int first = start < 0 ? (stride - 1 - start) / stride : 0;
    for (int i = first; i < count && start + i * stride < width; i++)
        sums[i] += (int64_t)x[start + i * stride] * weight;
}

/* Each group of output channels reads its own group of input channels; what lies outside the map is zero. */
static void convolve(const int32_t *x, struct map in, int32_t *y, struct map out, struct weight weight, int groups,
                     struct window window, struct rescale next)
{
    static int64_t sums[LONGEST_ROW];
    int channels = in.channels / groups;
    for (int channel = 0; channel < out.channels; channel++)
        for (int row = 0; row < out.height; row++) {
            int at = channel * channels * window.kernel[0] * window.kernel[1];
            const int32_t *map = x + channel / (out.channels / groups) * channels * in.height * in.width;
            for (int column = 0; column < out.width; column++)
                sums[column] = 0;
            for (int source = 0; source < channels; source++, map += in.height * in.width)
                for (int i = 0; i < window.kernel[0]; i++) {
                    int u = row * window.stride[0] - window.before[0] + i * window.dilation[0];
                    for (int j = 0; j < window.kernel[1]; j++, at++)
                        if (u >= 0 && u < in.height)
                            add_row(sums, out.width, map + u * in.width, in.width,
                                    j * window.dilation[1] - window.before[1], window.stride[1],
                                    weight_at(weight, at));
                }
            for (int column = 0; column < out.width; column++)
                *y++ = rescaled(sums[column], next, channel);
        }
}
/*@multiply*/

/* Each row of `inputs` values becomes one of `outputs`. */
static void multiply(const int32_t *x, int rows, int inputs, int32_t *y, int outputs, struct weight weight,
                     struct rescale next)
{
    for (int row = 0; row < rows; row++)
        for (int output = 0; output < outputs; output++) {
            int64_t sum = 0;
            for (int input = 0; input < inputs; input++)
                sum += (int64_t)x[row * inputs + input] * weight_at(weight, output * inputs + input);
            *y++ = rescaled(sum, next, output);
        }
}
/*@rescale_values*/

static void rescale_values(const int32_t *x, int32_t *y, int channels, int positions, struct rescale next)
{
    for (int channel = 0; channel < channels; channel++)
        for (int position = 0; position < positions; position++)
            *y++ = rescaled(*x++, next, channel);
}
/*@copy_values*/

static void copy_values(const int32_t *x, int32_t *y, int count)
{
    for (int i = 0; i < count; i++)
        y[i] = x[i];
}
/*@add_values*/

static void add_values(const int32_t *x, int32_t *y, int count)
{
    for (int i = 0; i < count; i++)
        y[i] += x[i];
}
/*@zero_values*/

static void zero_values(int32_t *y, int count)
{
    for (int i = 0; i < count; i++)
        y[i] = 0;
}
/*@clamp_values*/

static void clamp_values(const int32_t *x, int32_t *y, int count, int32_t low, int32_t high)
{
    for (int i = 0; i < count; i++)
        y[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}
/*@pool_max*/

static void pool_max(const int32_t *x, struct map in, int32_t *y, struct map out, struct window window)
{
    for (int channel = 0; channel < out.channels; channel++, x += in.height * in.width)
        for (int row = 0; row < out.height; row++)
            for (int column = 0; column < out.width; column++) {
                int32_t largest = INT32_MIN;
                for (int i = 0; i < window.kernel[0]; i++)
                    for (int j = 0; j < window.kernel[1]; j++) {
                        int u = row * window.stride[0] - window.before[0] + i;
                        int v = column * window.stride[1] - window.before[1] + j;
                        if (u >= 0 && u < in.height && v >= 0 && v < in.width && x[u * in.width + v] > largest)
                            largest = x[u * in.width + v];
                    }
                *y++ = largest;
            }
}
/*@pool_sum*/

/*
 * Sums times `multiple` over the window's number of values, which the scale of the result divides by again. Where
 * `outside`, zeros of the padding count as values.
 */
static void pool_sum(const int32_t *x, struct map in, int32_t *y, struct map out, struct window window, int outside,
                     int multiple)
{
    for (int channel = 0; channel < out.channels; channel++, x += in.height * in.width)
        for (int row = 0; row < out.height; row++)
            for (int column = 0; column < out.width; column++) {
                int32_t sum = 0;
                int count = 0;
                for (int i = 0; i < window.kernel[0]; i++)
                    for (int j = 0; j < window.kernel[1]; j++) {
                        int u = row * window.stride[0] - window.before[0] + i;
                        int v = column * window.stride[1] - window.before[1] + j;
                        int inside = u >= 0 && u < in.height && v >= 0 && v < in.width;
                        if (inside)
                            sum += x[u * in.width + v];
                        if (inside || (outside && u < in.height + window.after[0] && v < in.width + window.after[1]))
                            count++;
                    }
                *y++ = sum * (multiple / count);
            }
}
/*@place*/

/* Writes the map `x` into the larger map `y`, from the given channel, row and column on. */
static void place(const int32_t *x, struct map in, int32_t *y, struct map out, int channel, int row, int column)
{
    for (int c = 0; c < in.channels; c++)
        for (int i = 0; i < in.height; i++)
            for (int j = 0; j < in.width; j++)
                y[((channel + c) * out.height + row + i) * out.width + column + j] = *x++;
}
/*@take*/

/* Reads a part of the map `x`: every step-th channel, row and column from `start` on. */
static void take(const int32_t *x, struct map in, int32_t *y, struct map out, const int start[3], const int step[3])
{
    for (int c = 0; c < out.channels; c++)
        for (int i = 0; i < out.height; i++)
            for (int j = 0; j < out.width; j++) {
                int u = start[1] + i * step[1], v = start[2] + j * step[2];
                *y++ = x[((start[0] + c * step[0]) * in.height + u) * in.width + v];
            }
}
/*@gather_values*/

static void gather_values(const int32_t *x, int32_t *y, const int32_t *channels, int count, int positions)
{
    for (int i = 0; i < count; i++)
        for (int position = 0; position < positions; position++)
            *y++ = x[channels[i] * positions + position];
}
/*@floor_half*/

static int32_t floor_half(int32_t value)
{
    return value >= 0 ? value / 2 : -((1 - value) / 2);
}
/*@halve_values*/

/* Leaves the larger half of each code of some channels, or the smaller one. */
static void halve_values(int32_t *y, const int32_t *channels, int count, int positions, int32_t highest, int upper)
{
    for (int i = 0; i < count; i++)
        for (int position = 0; position < positions; position++) {
            int32_t *code = y + channels[i] * positions + position;
            *code = floor_half((*code > highest ? highest : *code) + upper);
        }
}
/*@merge_values*/

enum merge {
    SMALLER_HALF, SMALLER_NEAR_HALF, MASKED_SUM, PLAIN_SUM, SMALLER, ROUNDED_MEAN, MAJORITY, MEDIAN, ZEROED, CLIPPED
};

struct grid {
    int32_t low, high;
};

static int32_t smaller_of(int32_t one, int32_t two)
{
    return one < two ? one : two;
}

static int32_t larger_of(int32_t one, int32_t two)
{
    return one > two ? one : two;
}

static int32_t between(int32_t code, int32_t low, int32_t high)
{
    return code < low ? low : code > high ? high : code;
}

/* A half as it can be: its top bit 0, or, signed, its two top bits equal; then the value nearer to the other half. */
static int32_t masked(int32_t half, int32_t other, struct grid grid)
{
    int32_t size = (grid.high + 1) / 2;
    if (grid.low == 0)
        return half >= size ? half - size : half;
    if (half >= -size && half < size)
        return half;
    int32_t rest = half < 0 ? half + 2 * size : half - size;
    return 2 * (rest - other) < size ? rest : rest - size;
}

static int32_t merged_halves(int32_t one, int32_t two, enum merge rule, struct grid grid, int32_t limit)
{
    int32_t upper = masked(one, two, grid), lower = masked(two, one, grid), apart = upper - lower;
    if (rule == MASKED_SUM || (rule == SMALLER_HALF && (apart == 0 || apart == 1)) ||
        (rule == SMALLER_NEAR_HALF && apart >= -limit && apart <= limit))
        return upper + lower;
    return 2 * smaller_of(upper, lower);
}

static int32_t merged(int32_t one, int32_t two, int32_t three, enum merge rule, struct grid grid, int32_t first,
                      int32_t second)
{
    switch (rule) {
    case PLAIN_SUM:
        return between(one + two, grid.low, grid.high);
    case SMALLER:
        return smaller_of(one, two);
    case ROUNDED_MEAN:
        return floor_half(one + two);
    case MAJORITY:
        return (one & two) | (one & three) | (two & three);
    case MEDIAN:
        return larger_of(smaller_of(one, two), smaller_of(larger_of(one, two), three));
    case ZEROED:
        return one < first || one > second ? 0 : one;
    case CLIPPED:
        return between(one, first, second);
    default:
        return merged_halves(one, two, rule, grid, first);
    }
}

/* Corrects some channels of `y` by copies of them, or by limits of each; what there is none of is null. */
static void merge_values(int32_t *y, const int32_t *second, const int32_t *third, const int32_t *channels, int count,
                         int positions, enum merge rule, struct grid grid, const int32_t *low, const int32_t *high)
{
    for (int i = 0; i < count; i++)
        for (int position = 0; position < positions; position++) {
            int32_t *code = y + channels[i] * positions + position;
            int at = i * positions + position;
            *code = merged(*code, second ? second[at] : 0, third ? third[at] : 0, rule, grid, low ? low[i] : 0,
                           high ? high[i] : 0);
        }
}
