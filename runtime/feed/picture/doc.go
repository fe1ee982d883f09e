// Package picture writes pictures as PNG files: one image, or a grid of images with
// their captions underneath, for looking at data, reconstructions and samples.
//
// It is not an image library: pictures are 8-bit RGB, row by row, three bytes a
// pixel, as the feeds yield them. Start with Save and Grid.
package picture
