// Package mongodb is the MongoDB dialect: keys of documents, updates as the oplog logs them, and the catalog. It works
// on raw BSON bytes and never decodes and re-encodes a document, so what it returns is what the server stores.
//
// # Words
//
// A key is the sortable form of an _id (or of a TableID, in the catalog). A body is a document; the body of a patch is
// the raw `o` of an oplog update, or for the catalog the DDL command that [CatalogPatch] wraps. A catalog row is one
// document per collection, see [ParseCatalog] and docs/format/mongodb.md.
//
// # Invariants
//
//  1. Two keys are equal exactly when the server's _id index holds the values to be equal, whatever their types.
//  2. Applying the patches of a row in log order gives the bytes that the server's own application gives.
//  3. Malformed input is an error, never a panic, and never a result.
package mongodb
