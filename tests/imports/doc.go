// Package imports holds a test alone: it enforces which parts of the
// repository may use which others. Data flows from models to generated code,
// and nothing downstream is imported upstream; a trainer links no compiler.
package imports
