// Package trainer is the command line of a compiled system. The main package that
// gouachec writes calls Main with the system's Open:
//
//	trainer train [dvae|prior|clip|all] [-c FILE] [-resume] [-out DIR] [key=value ...]
//	trainer sample -caption TEXT ... | -held-out N
//	trainer eval | encode | info
//	trainer demo
//	trainer bench -program prior.train ...
//
// One folder holds a run: config.toml, tokenizer.json, a folder of snapshots and logs
// for each model, encoded pictures, samples. A command that is given no -c takes the
// run's own config.toml, so that sampling follows training.
//
// It trains and samples nothing itself (runtime/train, runtime/sample). Default
// settings by system are in recipes.go; start with Main.
package trainer
