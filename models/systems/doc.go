// Package systems has the systems that come with the compiler: demo, which
// trains on two CPU cores, emoji, for one GPU, and paper, at the sizes of
// "Zero-Shot Text-to-Image Generation"; and peers, models that are timed beside
// other programs.
//
// All their sizes are in sizes.go. A system of your own is a system.System
// registered with system.Register; it needs nothing from here.
//
// Start at sizes.go.
package systems
