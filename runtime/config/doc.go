// Package config reads strict TOML into a struct of defaults and applies
// key=value overrides from the command line.
//
//	cfg := trainer.Defaults()
//	err := config.Load(&cfg, "train.toml", []string{"optimizer.lr=3e-4"})
//
// Strict means: an unknown key, a value of the wrong type or a key set twice is
// an error of one line that says where (train.toml:12, or the override), what is
// wrong, and the nearest valid key. [Format] gives the resolved configuration
// back as TOML; it is printed at the start of a run and saved in every snapshot.
//
// The struct is the schema: fields are named by `toml:"name"` tags, `comment:"..."`
// tags appear in what Format writes, and a method Validate() error, if there is
// one, is called by Load at the end.
//
// What it is not: a flag parser or a place for settings of its own. It looks at
// no environment variables and searches no directories.
//
// Start with [Load].
package config
