"""What SQLAlchemy does with a server, printed so that two servers can be compared."""

import datetime

from sqlalchemy import (ARRAY, JSON, Enum, ForeignKey, Index, MetaData, Numeric, String, create_engine, exc,
                        func, inspect, select, text)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload


class Base(DeclarativeBase):
    pass


class Ward(Base):
    __tablename__ = "smoke_ward"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    beds: Mapped[list["Bed"]] = relationship(back_populates="ward", cascade="all, delete-orphan")


class Bed(Base):
    __tablename__ = "smoke_bed"
    id: Mapped[int] = mapped_column(primary_key=True)
    ward_id: Mapped[int] = mapped_column(ForeignKey("smoke_ward.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Enum("plain", "intensive", name="smoke_kind"))
    cost: Mapped[float] = mapped_column(Numeric(10, 2))
    tags: Mapped[list[str]] = mapped_column(ARRAY(String))
    facts: Mapped[dict] = mapped_column(JSON)
    since: Mapped[datetime.date]
    ward: Mapped[Ward] = relationship(back_populates="beds")
    __table_args__ = (Index("smoke_bed_kind", "kind", postgresql_where=text("cost > 10")),)


def show(title, value):
    print(f"{title}: {value!r}")


def main(driver):
    engine = create_engine(f"postgresql+{driver}://", pool_size=3, pool_pre_ping=True)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        wards = [Ward(name=f"ward {i}", beds=[
            Bed(kind="plain" if j % 2 else "intensive", cost=j * 1.5, tags=[f"t{j}", "ü"], facts={"j": j},
                since=datetime.date(2025, 1, 1 + j)) for j in range(5)]) for i in range(20)]
        session.add_all(wards)
        session.commit()
        query = select(Ward).options(selectinload(Ward.beds)).order_by(Ward.id).limit(3)
        show("loaded", [(w.name, [(b.kind, str(b.cost), b.tags, b.facts) for b in w.beds]) for w in session.scalars(query)])
        totals = select(Bed.kind, func.count(), func.sum(Bed.cost)).group_by(Bed.kind).order_by(Bed.kind)
        show("totals", [tuple(map(str, row)) for row in session.execute(totals)])
        try:
            with session.begin_nested():
                session.add(Ward(name="ward 1"))
                session.flush()
        except exc.IntegrityError as raised:
            show("integrity", (raised.orig.sqlstate, raised.orig.diag.constraint_name))
        session.delete(session.scalars(select(Ward).where(Ward.name == "ward 5")).one())
        session.commit()
        show("left", session.scalar(select(func.count()).select_from(Bed)))
        streamed = session.execute(select(Bed.id).order_by(Bed.id).execution_options(yield_per=7))
        show("streamed", sum(row[0] for row in streamed))
    with engine.connect() as connection:
        connection = connection.execution_options(isolation_level="SERIALIZABLE")
        show("level", connection.scalar(text("SHOW transaction_isolation")))
        looked = inspect(connection)
        show("tables", [name for name in looked.get_table_names() if name.startswith("smoke")])
        show("columns", [(c["name"], str(c["type"]), c["nullable"]) for c in looked.get_columns("smoke_bed")])
        show("keys", looked.get_foreign_keys("smoke_bed"))
        show("indexes", looked.get_indexes("smoke_bed"))
        show("enums", looked.get_enums())
    reflected = MetaData()
    reflected.reflect(engine, only=["smoke_ward", "smoke_bed"])
    show("reflected", sorted(reflected.tables))
    Base.metadata.drop_all(engine)
    engine.dispose()


main("psycopg")
