# An application with Sequel, with more connections than there are servers. Connections from libpq's environment variables.
# Prints "ok STEP" for each step, and what it saw: that must be the same on direct connections. Stops at the first step that fails.
require 'sequel'

THREADS = 6
$stdout.sync = true

def ok(step, *saw)
  puts "ok #{step}"
  saw.each { |each| puts "  saw #{each.inspect}" }
end

def connect(zone, path)
  # What Sequel itself sets on each new connection follows too: standard_conforming_strings, client_min_messages, DateStyle.
  Sequel.connect(adapter: 'postgres', host: ENV['PGHOST'], port: ENV['PGPORT'], user: ENV['PGUSER'], password: ENV['PGPASSWORD'],
                 database: ENV['PGDATABASE'], max_connections: THREADS, search_path: path,
                 connect_sqls: ["SET TIME ZONE '#{zone}'"])
end

def at_once(count)
  (0...THREADS).map { |thread| Thread.new { (0...count).map { |n| yield(thread, n) } } }.flat_map(&:value)
end

east = connect('Asia/Tokyo', %w[depot public])
west = connect('America/Lima', %w[public])

west.create_schema(:depot)
west.create_table(Sequel[:depot][:part]) do
  primary_key :id
  String :name, null: false, unique: true
  Integer :count, default: 0
end
ok 'create'

ids = at_once(10) { |thread, n| east[:part].insert(name: "part #{thread} #{n}", count: n) }
ok 'insert', ids.sort == (1..THREADS * 10).to_a, east[:part].sum(:count)

clock = "SELECT to_char(timestamptz '2024-01-01 00:00Z', 'HH24:MI') || ' ' || current_schema() AS clock"
seen = at_once(10) { |thread, _| (thread.even? ? east : west).fetch(clock).get(:clock) + " #{thread.even?}" }
ok 'settings', *seen.uniq.sort

read = at_once(10) do |thread, n|
  east.synchronize do
    # Prepared under a name on each connection.
    east[:part].where(name: :$name).prepare(:first, :by_name).call(name: "part #{thread} #{n}")[:count] == n
  end
end
ok 'prepared', read.uniq

begin
  east.transaction do
    east[:part].update(count: 0)
    begin
      east.transaction(savepoint: true) { east[:part].insert(name: 'part 0 0') }
    rescue Sequel::UniqueConstraintViolation => e
      puts "  saw #{e.class}"
    end
    raise Sequel::Rollback
  end
  levels = %i[serializable repeatable committed].map do |level|
    east.transaction(isolation: level) { east.get { current_setting('transaction_isolation') } }
  end
end
ok 'transactions', east[:part].sum(:count), *levels

# A cursor WITH HOLD lives outside of transactions, with other statements between.
total = 0
east[:part].order(:id).use_cursor(rows_per_fetch: 7, hold: true).each do |row|
  total += row[:id]
  west.get(1)
end
ok 'cursor', total

east.copy_into(Sequel[:depot][:part], columns: %i[name count], data: (1..100).map { |n| "copied #{n}\t#{n}\n" })
ok 'copy', east.copy_table(east[:part].where(Sequel.like(:name, 'copied%')).select(:count).order(:count)).lines.sum(&:to_i)

held = at_once(5) do |_, _|
  east.synchronize do
    east.get { pg_advisory_lock(99) }
    count = east[:part].where(name: 'part 0 0').get(:count)
    east[:part].where(name: 'part 0 0').update(count: count + 1)
    east.get { pg_advisory_unlock(99) }
  end
end
ok 'locks', held.uniq, east[:part].where(name: 'part 0 0').get(:count)

heard = east.listen(:news, timeout: 60, after_listen: ->(_) { west.notify(:news, payload: 'word') }) { |_, _, payload| puts "  saw #{payload}" }
ok 'listen', heard

schema = east.schema(:part).map { |name, about| [name, about[:db_type], about[:allow_null]] }
ok 'reflection', schema, east.indexes(:part).values.map { |index| index[:columns] }
west.drop_table(Sequel[:depot][:part])
west.drop_schema(:depot)
ok 'drop'
