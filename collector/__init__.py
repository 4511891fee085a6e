"""The log pipeline: spool -> (Kafka ->) Parquet, exactly once, and the commands that read it.

`assemble` turns bodies into columns, `ledger` frames into attempts (both sans-IO); `row` makes the
table, `chain` the files of a partition, `partition` brings them together; `embedded` reads spools,
`shipper` and `kafka_sink` speak Kafka through `kafka`.
"""
