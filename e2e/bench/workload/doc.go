// Package workload is the one fixed piece of work that everything in package bench is timed on: 300,000 documents of about 1 KB in
// shop.orders and shop.customers, then 500,000 oplog entries of updates, inserts, deletes and transactions, or days on which 3 % of
// the documents change.
//
// What holds: for one seed and size, the documents and operations are the same bytes in every run.
package workload
