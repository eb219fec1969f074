SELECT abalance FROM pgbench_accounts WHERE aid = 12345

UPDATE pgbench_accounts SET abalance = abalance + -1234 WHERE aid = 1;

SELECT E'a\'b\\', U&'d\0061t', B'101', X'1F', $$x$$, $t$ $$ $t$

SELECT U&"d\0061t" FROM t

SELECT 'a'
 'b' -- c
 'd'

SELECT 0x1F, 0b11, 0o17, 1_000, 1e5, 1.5E-3, .5, 5., 1_0.0_1

SELECT a[1:2], a[:], a[i:], a.b.c, a::int[], :x

SELECT a+-b, a - -1, a*-1, a@-1, a?-b, a||b, a<>b, a!=b, a<=b, a>=b, a->>'x', a#>>'{a}', a@>b, a<@b, a&&b, a|/b, a!~~*b

SELECT f(a => 1, b := 2)

/* one /* two */ three */ SELECT 1 /**/ -- four

SELECT "a""b", "é", é, _x$1, a$b FROM "T t"

SELECT $1, $2::text, $10

SELECT 1;;SELECT 2

COPY t (a, b) FROM STDIN WITH (FORMAT csv, DELIMITER E'\t')

CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $body$ BEGIN PERFORM 1; END $body$

SELECT 1<--x
2

SELECT a*/*x*/b

SELECT ~1, @-5, |/4, -5 ! , #3

SELECT 'it''s', ''

SET search_path TO "$user", public

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

SELECT interval '1 day', date '2020-01-01', timestamp with time zone 'now'

WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n+1 FROM r WHERE n<100) SELECT sum(n) FROM r

INSERT INTO t(a,b,c) VALUES (1,'x',NULL),(2,'y',DEFAULT) ON CONFLICT (a) DO UPDATE SET b=EXCLUDED.b RETURNING *

MERGE INTO t USING s ON t.id=s.id WHEN MATCHED THEN UPDATE SET a=s.a WHEN NOT MATCHED THEN INSERT VALUES (s.id)

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x DESC NULLS LAST) FILTER (WHERE y) OVER (PARTITION BY z) FROM t

DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t

FETCH FORWARD 10 FROM c

EXPLAIN (ANALYZE, BUFFERS OFF) SELECT 1

DO $$ DECLARE x int := 1; BEGIN x := x+1; END; $$

SELECT x'ab', b'', E'', n.a FROM n

SELECT u & 1, u&1, e -1, b+1, x FROM u

SELECT '\', 'a\'

SELECT t.*, count(*) FROM t

SELECT a -- trailing

SELECT a+b, a + -1, a+'x', a+(1), +1, a+$1, a+"q", a+/* c */b

SELECT a-b, a - -1, a-'x', a-(1), -1, a-$1, a-"q", a-/* c */b

SELECT a*b, a * -1, a*'x', a*(1), *1, a*$1, a*"q", a*/* c */b

SELECT a/b, a / -1, a/'x', a/(1), /1, a/$1, a/"q", a//* c */b

SELECT a%b, a % -1, a%'x', a%(1), %1, a%$1, a%"q", a%/* c */b

SELECT a^b, a ^ -1, a^'x', a^(1), ^1, a^$1, a^"q", a^/* c */b

SELECT a<b, a < -1, a<'x', a<(1), <1, a<$1, a<"q", a</* c */b

SELECT a>b, a > -1, a>'x', a>(1), >1, a>$1, a>"q", a>/* c */b

SELECT a=b, a = -1, a='x', a=(1), =1, a=$1, a="q", a=/* c */b

SELECT a<=b, a <= -1, a<='x', a<=(1), <=1, a<=$1, a<="q", a<=/* c */b

SELECT a>=b, a >= -1, a>='x', a>=(1), >=1, a>=$1, a>="q", a>=/* c */b

SELECT a<>b, a <> -1, a<>'x', a<>(1), <>1, a<>$1, a<>"q", a<>/* c */b

SELECT a!=b, a != -1, a!='x', a!=(1), !=1, a!=$1, a!="q", a!=/* c */b

SELECT a||b, a || -1, a||'x', a||(1), ||1, a||$1, a||"q", a||/* c */b

SELECT a~b, a ~ -1, a~'x', a~(1), ~1, a~$1, a~"q", a~/* c */b

SELECT a~*b, a ~* -1, a~*'x', a~*(1), ~*1, a~*$1, a~*"q", a~*/* c */b

SELECT a!~b, a !~ -1, a!~'x', a!~(1), !~1, a!~$1, a!~"q", a!~/* c */b

SELECT a&b, a & -1, a&'x', a&(1), &1, a&$1, a&"q", a&/* c */b

SELECT a|b, a | -1, a|'x', a|(1), |1, a|$1, a|"q", a|/* c */b

SELECT a#b, a # -1, a#'x', a#(1), #1, a#$1, a#"q", a#/* c */b

SELECT a<<b, a << -1, a<<'x', a<<(1), <<1, a<<$1, a<<"q", a<</* c */b

SELECT a>>b, a >> -1, a>>'x', a>>(1), >>1, a>>$1, a>>"q", a>>/* c */b

SELECT a@>b, a @> -1, a@>'x', a@>(1), @>1, a@>$1, a@>"q", a@>/* c */b

SELECT a<@b, a <@ -1, a<@'x', a<@(1), <@1, a<@$1, a<@"q", a<@/* c */b

SELECT a?b, a ? -1, a?'x', a?(1), ?1, a?$1, a?"q", a?/* c */b

SELECT a?|b, a ?| -1, a?|'x', a?|(1), ?|1, a?|$1, a?|"q", a?|/* c */b

SELECT a?&b, a ?& -1, a?&'x', a?&(1), ?&1, a?&$1, a?&"q", a?&/* c */b

SELECT a->b, a -> -1, a->'x', a->(1), ->1, a->$1, a->"q", a->/* c */b

SELECT a->>b, a ->> -1, a->>'x', a->>(1), ->>1, a->>$1, a->>"q", a->>/* c */b

SELECT a#>b, a #> -1, a#>'x', a#>(1), #>1, a#>$1, a#>"q", a#>/* c */b

SELECT a#>>b, a #>> -1, a#>>'x', a#>>(1), #>>1, a#>>$1, a#>>"q", a#>>/* c */b

SELECT a&&b, a && -1, a&&'x', a&&(1), &&1, a&&$1, a&&"q", a&&/* c */b

SELECT a-|-b, a -|- -1, a-|-'x', a-|-(1), -|-1, a-|-$1, a-|-"q", a-|-/* c */b

SELECT a@@b, a @@ -1, a@@'x', a@@(1), @@1, a@@$1, a@@"q", a@@/* c */b

SELECT a@?b, a @? -1, a@?'x', a@?(1), @?1, a@?$1, a@?"q", a@?/* c */b

SELECT a<->b, a <-> -1, a<->'x', a<->(1), <->1, a<->$1, a<->"q", a<->/* c */b

SELECT a|||b, a ||| -1, a|||'x', a|||(1), |||1, a|||$1, a|||"q", a|||/* c */b

SELECT a+-+b, a +-+ -1, a+-+'x', a+-+(1), +-+1, a+-+$1, a+-+"q", a+-+/* c */b

SELECT a<%b, a <% -1, a<%'x', a<%(1), <%1, a<%$1, a<%"q", a<%/* c */b

SELECT a=+b, a =+ -1, a=+'x', a=+(1), =+1, a=+$1, a=+"q", a=+/* c */b

SELECT a=-b, a =- -1, a=-'x', a=-(1), =-1, a=-$1, a=-"q", a=-/* c */b

SELECT a*-b, a *- -1, a*-'x', a*-(1), *-1, a*-$1, a*-"q", a*-/* c */b

SELECT a@-b, a @- -1, a@-'x', a@-(1), @-1, a@-$1, a@-"q", a@-/* c */b

SELECT a~-b, a ~- -1, a~-'x', a~-(1), ~-1, a~-$1, a~-"q", a~-/* c */b

SELECT 'a',E'\n';SELECT('a')::t[E'\n']

SELECT 'a',U&'x';SELECT('a')::t[U&'x']

SELECT 'a',1;SELECT('a')::t[1]

SELECT 'a',.5;SELECT('a')::t[.5]

SELECT B'0',E'\n';SELECT(B'0')::t[E'\n']

SELECT B'0',U&'x';SELECT(B'0')::t[U&'x']

SELECT B'0',1;SELECT(B'0')::t[1]

SELECT B'0',.5;SELECT(B'0')::t[.5]

SELECT U&'x',E'\n';SELECT(U&'x')::t[E'\n']

SELECT U&'x',U&'x';SELECT(U&'x')::t[U&'x']

SELECT U&'x',1;SELECT(U&'x')::t[1]

SELECT U&'x',.5;SELECT(U&'x')::t[.5]

SELECT $a1$d$a1$,E'\n';SELECT($a1$d$a1$)::t[E'\n']

SELECT $a1$d$a1$,U&'x';SELECT($a1$d$a1$)::t[U&'x']

SELECT $a1$d$a1$,1;SELECT($a1$d$a1$)::t[1]

SELECT $a1$d$a1$,.5;SELECT($a1$d$a1$)::t[.5]

SELECT 1.5,E'\n';SELECT(1.5)::t[E'\n']

SELECT 1.5,U&'x';SELECT(1.5)::t[U&'x']

SELECT 1.5,1;SELECT(1.5)::t[1]

SELECT 1.5,.5;SELECT(1.5)::t[.5]

SELECT .5,E'\n';SELECT(.5)::t[E'\n']

SELECT .5,U&'x';SELECT(.5)::t[U&'x']

SELECT .5,1;SELECT(.5)::t[1]

SELECT .5,.5;SELECT(.5)::t[.5]

SELECT $3,E'\n';SELECT($3)::t[E'\n']

SELECT $3,U&'x';SELECT($3)::t[U&'x']

SELECT $3,1;SELECT($3)::t[1]

SELECT $3,.5;SELECT($3)::t[.5]
