/* LeNet-5, written by keras_lenet.
 *
@card@
 *
 * The network is a chain of layers: `lenet5_predict`, at the end of this file,
 * calls one function for each. A layer's values are an array of height x width
 * x maps: all maps of the first pixel, then all maps of the next one.
 */
#include "lenet5.h"

#include <math.h>

@weights@

@functions@

int lenet5_predict(const uint8_t image[LENET5_PIXELS],
                   float probabilities[LENET5_CLASSES])
{
    /* Each layer reads one array and writes the other. */
    static float a[@size_a@];
    static float b[@size_b@];
    int best = 0;

    for (int i = 0; i < LENET5_PIXELS; i++)
        a[i] = image[i];
@steps@
    for (int i = 0; i < LENET5_CLASSES; i++) {
        probabilities[i] = @output@[i];
        if (probabilities[i] > probabilities[best])
            best = i;
    }
    return best;
}
