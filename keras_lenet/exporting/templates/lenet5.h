/* LeNet-5, written by keras_lenet.
 *
@card@
 */
#ifndef LENET5_H
#define LENET5_H

#include <stdint.h>

#define LENET5_CLASSES @classes@
#define LENET5_PIXELS (@height@ * @width@ * @channels@)

/* Reads an image.
 *
 * image: pixels from 0 (background) to 255 (ink), row by row. Colours of a
 *     pixel follow each other.
 * probabilities: the probability of each class, from 0 to 1, is written here.
 *
 * Returns the most probable class. The function uses static memory, so only one
 * thread may call it at a time.
 */
int lenet5_predict(const uint8_t image[LENET5_PIXELS],
                   float probabilities[LENET5_CLASSES]);
@more@
#endif
