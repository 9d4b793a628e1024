/* LeNet-5 in integers, written by keras_lenet.
 *
@card@
 *
 * The network is a chain of layers: `lenet5_predict_int8`, near the end of this
 * file, calls one function for each. A layer's values are an array of height x
 * width x maps: all maps of the first pixel, then all maps of the next one.
 *
 * A value is an integer from -128 to 127. It stands for the real number
 * scale * (value - zero), where each layer has its own scale and zero. A layer
 * sums products of integers, multiplies the sum by scale_in * scale_kernel /
 * scale_out, and adds the zero of its outputs. The result is that of LiteRT for
 * Microcontrollers, bit for bit.
 */
#include "lenet5.h"

@weights@

@functions@

int lenet5_predict_int8(const uint8_t image[LENET5_PIXELS],
                        int8_t outputs[LENET5_CLASSES])
{
    /* Each layer reads one array and writes the other. */
    static int8_t a[@size_a@];
    static int8_t b[@size_b@];
    int best = 0;

    for (int i = 0; i < LENET5_PIXELS; i++)
        a[i] = (int8_t)(image[i] - 128);
@steps@
    for (int i = 0; i < LENET5_CLASSES; i++) {
        outputs[i] = @output@[i];
        if (outputs[i] > outputs[best])
            best = i;
    }
    return best;
}

int lenet5_predict(const uint8_t image[LENET5_PIXELS],
                   float probabilities[LENET5_CLASSES])
{
    int8_t outputs[LENET5_CLASSES];
    int best = lenet5_predict_int8(image, outputs);

    for (int i = 0; i < LENET5_CLASSES; i++)
        probabilities[i] = (outputs[i] + 128) / 256.0f;
    return best;
}
